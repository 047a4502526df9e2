"""How fast is this machine? Training, generation and tokenizing, in one table, and as JSON.

    python tools/benchmark.py                                   # everything, on the best device there is
    python tools/benchmark.py --only training --models course --compare path/to/reference.py

--compare runs another program that prints one line of JSON (`real_tokens_per_second`, `generated_tokens_per_second`,
`peak_rss_mb`, `peak_gpu_mb`) beside ours, in turns, and prints the ratios: machines are noisy, so only numbers of one
run say anything. Each measurement runs in a process of its own, so that its peak memory is its own. Needs torch, numpy
and tokenizers, nothing else, and any torch from 2.9 on.
"""

import argparse
import json
import math
import multiprocessing
import platform
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import torch

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from data import SPECIAL_TOKENS, Rows, TokenCache, batches_of_text, cache_stories, train_tokenizer  # noqa: E402
from model import ModelConfig, Transformer, generate  # noqa: E402
from optimizer import make_optimizers  # noqa: E402
from sources import Split  # noqa: E402
from training import Precision, TrainingSettings, choose_device, has_bfloat16, micro_batches, training_step  # noqa: E402

MODELS = {
    "course": {},
    "cs336": {"hidden_size": 512, "num_heads": 16, "intermediate_size": 1344, "arch": "llama", "tie_embeddings": False},
    "28M": {"num_layers": 8, "hidden_size": 512, "num_heads": 16, "intermediate_size": 2048, "arch": "gpt2"},
    "gpt2": {
        "num_layers": 12, "hidden_size": 768, "num_heads": 12, "intermediate_size": 3072, "max_seq_len": 1024,
        "vocab_size": 50_257, "arch": "gpt2",
    },
}  # fmt: skip
PEAK_TFLOPS = {"T4": 65, "L4": 121, "A100": 312, "H100": 990, "H200": 990}  # dense 16-bit, from the data sheets
SPECIAL = {token: index for index, token in enumerate(SPECIAL_TOKENS)}
STORY_TOKENS, STORY_SPREAD = 200, 0.3  # TinyStories' lengths under a 10,000-token BPE: median, sigma of the logarithm


def quiet(message):
    """For what would only disturb the table."""


def config_of(name):
    return ModelConfig(**({"vocab_size": 10_000, "dropout": 0.0} | MODELS[name]))


def random_stories(count, vocab_size, seed=0):
    """A TokenCache in memory, of random tokens with the lengths of TinyStories."""
    generator = np.random.default_rng(seed)
    lengths = np.exp(generator.normal(math.log(STORY_TOKENS), STORY_SPREAD, count)).astype(np.int64)
    tokens = generator.integers(len(SPECIAL), vocab_size, lengths.sum()).astype(np.uint32)
    starts = np.cumsum([0, *lengths])
    tokens[starts[:-1]], tokens[starts[1:] - 1] = SPECIAL["<bos>"], SPECIAL["<eos>"]
    return TokenCache(tokens, starts, lengths * 4)


def flops_per_token(model):
    """Of training: 6 a weight that multiplies, and 12 x layers x hidden x context for attention (PaLM, appendix B)."""
    config = model.config
    weights = model.num_parameters()[0] + config.vocab_size * config.hidden_size
    return 6 * weights + 12 * config.num_layers * config.hidden_size * config.max_seq_len


def peak_flops(device):
    """The device's operations a second: a GPU's from its data sheet, a CPU's from a matrix product, or None."""
    if device.type == "cuda":
        name = torch.cuda.get_device_name(device)
        return next((peak * 1e12 for card, peak in PEAK_TFLOPS.items() if card in name), None)
    if device.type != "cpu":
        return None
    a, b = torch.randn(2048, 1024), torch.randn(1024, 1024)
    best = math.inf
    for _ in range(20):
        began = time.perf_counter()
        a @ b
        best = min(best, time.perf_counter() - began)
    return 2 * 2048 * 1024 * 1024 / best


def synchronize(device):
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def measure_training(device, name, batch_size, packed, amp_dtype, steps):
    config = config_of(name)
    model = Transformer(config).to(device).train()
    settings = TrainingSettings(batch_size=batch_size)
    precision = Precision(device, amp_dtype is not None, amp_dtype or "float16", quiet)
    optimizers = make_optimizers(model, settings)
    stories = random_stories(batch_size * (steps + 2) * config.max_seq_len // STORY_TOKENS + 50, config.vocab_size)
    rows = Rows(stories, config.max_seq_len, SPECIAL, packed, seed=0)
    tokens = seconds = 0
    for step in range(-1, steps):  # one step to warm up
        began = time.perf_counter()
        batches = micro_batches(rows, step + 1, settings, device)
        _, predicted, _ = training_step(model, optimizers, precision, batches, settings)
        if step in (-1, steps - 1):
            synchronize(device)
        if step >= 0:
            tokens, seconds = tokens + predicted, seconds + time.perf_counter() - began
    speed, peak = tokens / seconds, peak_flops(device)
    mfu = speed * flops_per_token(model) / peak if peak else None
    return {"tokens_per_second": round(speed), "mfu": mfu and round(mfu, 3)}


def measure_generation(device, name, batch_size, new_tokens):
    config = config_of(name)
    model = Transformer(config).to(device).eval()
    prompts = [[SPECIAL["<bos>"], *range(10, 17)]] * batch_size
    for _ in generate(model, prompts, 4):
        pass
    began = time.perf_counter()
    written = sum(len(tokens) for tokens in generate(model, prompts, new_tokens, top_k=50))
    return {"tokens_per_second": round(written / (time.perf_counter() - began), 1)}


def words(seed=0, megabytes=20):
    """Yield texts like stories, made of words of our own: enough to give a tokenizer its usual work."""
    generator = np.random.default_rng(seed)
    letters = np.array(list("abcdefghijklmnopqrstuvwxyz"))
    lexicon = np.array(["".join(generator.choice(letters, generator.integers(2, 9))) for _ in range(5000)])
    ranks = np.minimum((generator.pareto(1.0, megabytes * 200_000) * 10).astype(int), len(lexicon) - 1)
    for first in range(0, len(ranks), 180):
        yield " ".join(lexicon[ranks[first : first + 180]]).capitalize() + "."


def measure_tokenizing(megabytes):
    """Bytes a second into the token cache, and of `encode_batch_fast` alone on the same text."""
    texts = list(words(megabytes=megabytes))
    size = sum(map(len, texts))
    tokenizer = train_tokenizer(texts[:2000], 10_000)
    split = Split("words", lambda: (({"text": text}, "") for text in texts), lambda: "words")
    alone = cached = math.inf
    for _ in range(2):
        with tempfile.TemporaryDirectory() as folder:
            began = time.perf_counter()
            cache_stories(split, tokenizer, folder, say=quiet)
            cached = min(cached, time.perf_counter() - began)
        began = time.perf_counter()
        for batch in batches_of_text(texts):
            tokenizer.backend.encode_batch_fast(batch, add_special_tokens=False)
        alone = min(alone, time.perf_counter() - began)
    return {"bytes_per_second": round(size / cached), "encode_batch_fast_alone": round(size / alone)}


def in_a_process(function, *arguments):
    """Call a function in a new process; its result, with the process's peak memory in MB."""
    context = multiprocessing.get_context("spawn")
    receiver, sender = context.Pipe(duplex=False)
    process = context.Process(target=report, args=(sender, function, arguments))
    process.start()
    sender.close()
    try:
        result = receiver.recv()
    except EOFError:
        result = {"failed": "the process died; see above"}
    process.join()
    return result


def report(sender, function, arguments):
    try:
        result = function(*arguments)
        if torch.cuda.is_available():
            result["peak_gpu_mb"] = torch.cuda.max_memory_allocated() // 2**20
        result["peak_rss_mb"] = peak_rss_mb()
    except torch.OutOfMemoryError:
        result = {"failed": "out of memory"}
    sender.send(result)


def peak_rss_mb():
    try:
        import resource
    except ImportError:  # Windows
        return None
    unit = 1 if platform.system() == "Darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit // 2**20


def run_other(command):
    """The JSON that another program prints last."""
    done = subprocess.run([sys.executable, *command], capture_output=True, text=True, check=True)
    return json.loads(done.stdout.strip().splitlines()[-1])


def parse_args():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    kinds = ("training", "generation", "tokenizing")
    parser.add_argument("--only", nargs="+", choices=kinds, default=kinds, help="what to measure (default: all)")
    parser.add_argument(
        "--models", nargs="+", choices=MODELS, default=None, help="default: course on CPU, all on a GPU"
    )
    parser.add_argument("--batch_size", type=int, default=64, help="rows a training step (default: 64)")
    parser.add_argument("--steps", type=int, default=3, help="timed training steps (default: 3)")
    parser.add_argument("--new_tokens", type=int, default=200, help="length of the stories (default: 200)")
    parser.add_argument("--megabytes", type=int, default=20, help="text to tokenize (default: 20)")
    parser.add_argument("--device", default="auto")
    parser.add_argument("--compare", nargs=argparse.REMAINDER, help="a program to run beside ours, and its flags")
    parser.add_argument("--json", default="benchmark.json", help="where to write the numbers (default: benchmark.json)")
    return parser.parse_args()


def measurements(args, device):
    """Yield (name, function, its arguments) of all that is to be measured."""
    half = [None, *(["float16"] if device.type == "cuda" else []), *(["bfloat16"] if has_bfloat16(device) else [])]
    for name in args.models or (["course"] if device.type == "cpu" else list(MODELS)):
        if "training" in args.only:
            for packed in (True, False):
                for dtype in half:
                    label = f"training {name}, {'packed' if packed else 'padded'}, {dtype or 'float32'}"
                    yield label, measure_training, (device, name, args.batch_size, packed, dtype, args.steps)
        if "generation" in args.only:
            for batch_size in (1, 8, 64):
                yield f"generation {name}, {batch_size} at once", measure_generation, (
                    device, name, batch_size, args.new_tokens,
                )  # fmt: skip
    if "tokenizing" in args.only:
        yield f"tokenizing {args.megabytes} MB", measure_tokenizing, (args.megabytes,)


def print_ratios(label, result, other):
    kind, speed = label.split()[0], result.get("tokens_per_second")
    theirs = other.get({"training": "real_tokens_per_second", "generation": "generated_tokens_per_second"}.get(kind))
    if theirs and speed:
        memory = result["peak_rss_mb"] / other["peak_rss_mb"] if other.get("peak_rss_mb") else math.nan
        print(f"    {speed / theirs:.2f} x the other's {theirs} tokens/s; {memory:.2f} x its peak memory (RSS)")


def main():
    args = parse_args()
    device = choose_device(args.device)
    about = {"python": platform.python_version(), "torch": torch.__version__, "machine": platform.processor()}
    about |= {"device": torch.cuda.get_device_name() if device.type == "cuda" else str(device)}
    about |= {"threads": torch.get_num_threads(), "date": time.strftime("%Y-%m-%d"), "command": sys.argv[1:]}
    print(json.dumps(about))
    results, other = {}, None
    for label, function, arguments in measurements(args, device):
        if args.compare:
            other = run_other(args.compare)
        result = in_a_process(function, *arguments)
        results[label] = result | ({"other": other} if other else {})
        print(f"{label:45}" + "  ".join(f"{name} {value:,}" for name, value in result.items() if value is not None))
        if other:
            print_ratios(label, result, other)
    Path(args.json).write_text(json.dumps({"about": about, "results": results}, indent=1))


if __name__ == "__main__":
    main()
