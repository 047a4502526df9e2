"""Looking inside a model: what is shown is what the network computes; a part that is left out has no effect at all."""

import itertools
import json
import math
import shutil

import look_inside
import pytest
import torch
import torch.nn.functional as F
from inside.ablation import ablate, mean_outputs
from inside.embeddings import nearest_tokens, principal_components
from inside.heads import KINDS, head_scores, label_of
from inside.parts import Part, all_left_out, left_out, parts_of, read_part, zero_out
from inside.recording import logit_lens, record
from inside.stories import Story, batches_of, repeated_names
from tiny import SPECIAL, assert_same, both, make_model, random_ids

from common.devices import Precision
from common.errors import UserError
from common.text import without_controls
from common.weights_files import load_model, save_model
from data import load_tokenizer
from generation.prompts import story_prompt
from generation.sampling import Sampling
from generation.writer import Writer

CPU = torch.device("cpu")
FLOAT32 = Precision(CPU)
PARTS = [Part(0, 1), Part(1, 0), Part(0), Part(1)]
variants = pytest.mark.parametrize(
    "changes",
    [{"arch": "gpt2"}, {"arch": "gpt2", "bias": False}, {}, {"window_size": 4}, {"tie_embeddings": False}],
    ids=str,
)


def make_stories(*lengths, repeated_names=None):
    return [Story([SPECIAL["<bos>"], *random_ids(n, seed=n).tolist()], repeated_names or {}) for n in lengths]


# Recording ------------------------------------------------------------------------------------------------------------


@variants
def test_each_row_of_attention_sums_to_one_and_sees_nothing_later(changes):
    attention = record(make_model(**changes), random_ids(9).tolist()).attention
    assert attention.shape == (2, 2, 9, 9)
    assert_same(attention.sum(-1), torch.ones(2, 2, 9))
    assert attention.triu(1).abs().max() == 0
    if "window_size" in changes:
        assert attention.tril(-changes["window_size"]).abs().max() == 0


@variants
def test_the_networks_output_follows_from_the_recorded_attention(changes):
    model = make_model(**changes)
    ids = random_ids(9)
    recording = record(model, ids.tolist())
    x = model.embed(ids[None])
    for layer, block in enumerate(model.blocks):
        assert_same(recording.states[layer], x[0])
        v = block.attention.qkv(block.norm1(x)).chunk(3, dim=-1)[2].view(1, 9, 2, -1).transpose(1, 2)
        heads = recording.attention[layer] @ v  # (1, H, T, D)
        x = x + block.attention.output(heads.transpose(1, 2).reshape(1, 9, -1))
        x = x + block.feed_forward(block.norm2(x))
    assert_same(recording.states[-1], x[0])
    assert_same(recording.logits, model.logits(model.norm(x))[0])


@both
def test_the_lens_of_the_last_layer_is_the_models_prediction(arch):
    model = make_model(arch)
    ids = random_ids(8)
    lens = logit_lens(model, record(model, ids.tolist()).states)
    assert lens.shape == (3, 8, model.config.vocab_size)
    assert_same(lens[-1], model(ids[None])[0])
    assert_same(lens[0], model.logits(model.norm(model.embed(ids[None])))[0])


def test_recording_leaves_no_hook_behind():
    model = make_model()
    record(model, random_ids(5).tolist())
    assert not any(module._forward_hooks or module._forward_pre_hooks for module in model.modules())


# Leaving parts out ----------------------------------------------------------------------------------------------------


@both
@pytest.mark.parametrize("parts", [[part] for part in PARTS] + [PARTS[:2]])
def test_a_part_left_out_by_zero_is_a_model_with_zeros_in_its_weights(arch, parts):
    model, ids = make_model(arch), random_ids(2, 9)
    with all_left_out(model, parts):
        less = model(ids)
    assert not torch.allclose(less, model(ids))
    zero_out(model, parts)
    assert_same(less, model(ids))


def test_a_head_is_the_columns_of_its_layers_output_matrix():
    model, ids = make_model(), random_ids(1, 9)
    with left_out(model, Part(1, 1)):
        less = model(ids)
    with torch.no_grad():
        model.blocks[1].attention.output.weight[:, 8:16] = 0
    assert_same(less, model(ids))


def test_without_a_layer_its_input_passes_through():
    model, ids = make_model(num_layers=1), random_ids(1, 9)
    with left_out(model, Part(0)):
        less = model(ids)
    assert_same(less, model.logits(model.norm(model.embed(ids))))


def test_the_names_of_parts():
    model = make_model()
    assert [str(part) for part in parts_of(model)] == ["0.0", "0.1", "1.0", "1.1", "layer:0", "layer:1"]
    assert [read_part(str(part), model) for part in parts_of(model)] == parts_of(model)
    for wrong in ("2.0", "0.2", "layer:2", "layer 1", "1", "-1.0", "0.1.1", ""):
        with pytest.raises(UserError, match="from 0.0 to 1.1, or layer:LAYER, from layer:0 to layer:1"):
            read_part(wrong, model)


# Ablation -------------------------------------------------------------------------------------------------------------


def loss_of(model, stories):
    """Return the loss of stories in nats per token, each computed alone."""
    losses = [
        F.cross_entropy(model(torch.tensor([story.ids[:-1]]))[0], torch.tensor(story.ids[1:]), reduction="sum")
        for story in stories
    ]
    return (sum(losses) / sum(len(story.ids) - 1 for story in stories)).item()


@torch.no_grad()
@variants
def test_the_rise_is_the_difference_between_two_losses(changes):
    model = make_model(**changes)
    stories = make_stories(5, 9, 11, 8)
    base, rises = ablate(model, list(batches_of(stories, CPU)), FLOAT32)
    assert base.all == pytest.approx(loss_of(model, stories), rel=1e-5) and math.isnan(base.names)
    assert {rise.part for rise in rises} == set(parts_of(model))
    assert [rise.zero.all for rise in rises] == sorted((rise.zero.all for rise in rises), reverse=True)
    means = mean_outputs(model, list(batches_of(stories, CPU)))
    for rise in rises:
        with left_out(model, rise.part):
            assert base.all + rise.zero.all == pytest.approx(loss_of(model, stories), rel=1e-5)
        with left_out(model, rise.part, means[rise.part]):
            assert base.all + rise.mean.all == pytest.approx(loss_of(model, stories), rel=1e-5)


@torch.no_grad()
def test_the_mean_of_a_part_is_its_mean_over_all_tokens():
    model = make_model()
    stories = make_stories(5, 9, 11)
    added = []
    heads = []
    model.blocks[1].register_forward_hook(lambda module, inputs, output: added.append((output - inputs[0])[0]))
    model.blocks[1].attention.output.register_forward_pre_hook(lambda module, inputs: heads.append(inputs[0][0]))
    for story in stories:
        model(torch.tensor([story.ids[:-1]]))
    means = mean_outputs(model, list(batches_of(stories, CPU)))
    assert_same(means[Part(1)], torch.cat(added[:3]).mean(0))
    assert_same(means[Part(1, 1)], torch.cat(heads[:3]).mean(0)[8:])


def test_in_half_precision_the_rises_are_about_the_same():
    model = make_model()
    batches = list(batches_of(make_stories(5, 9, 11), CPU))
    exact = {rise.part: rise.zero.all for rise in ablate(model, batches, FLOAT32)[1]}
    half = Precision(CPU, amp=True)
    half.dtype = torch.bfloat16  # also on a CPU that has to emulate it
    assert {rise.part: rise.zero.all for rise in ablate(model, batches, half)[1]} == pytest.approx(exact, abs=0.1)


def test_losses_of_names_are_those_of_the_places_where_a_name_comes_again():
    model = make_model()
    (story,) = make_stories(9, repeated_names={4: [1], 7: [1, 4]})
    base, _ = ablate(model, list(batches_of([story], CPU)), FLOAT32)
    losses = F.cross_entropy(model(torch.tensor([story.ids[:-1]]))[0], torch.tensor(story.ids[1:]), reduction="none")
    assert base.names == pytest.approx((losses[3] + losses[6]).item() / 2, rel=1e-5)


# Heads ----------------------------------------------------------------------------------------------------------------


def fix_attention(monkeypatch, place_of):
    """Let every head attend only to the place that place_of returns for a position."""

    def attention(ids):
        weights = torch.zeros(2, 2, len(ids), len(ids))
        for position in range(len(ids)):
            weights[:, :, position, place_of(position, ids)] = 1
        return weights

    monkeypatch.setattr("inside.heads.record", lambda model, ids: type("Recording", (), {"attention": attention(ids)}))


@pytest.mark.parametrize(
    ("kind", "place_of"),
    [
        ("previous token", lambda position, ids: max(0, position - 1)),
        ("first token", lambda position, ids: 0),
        ("same token", lambda position, ids: ids.index(ids[position])),
        ("induction", lambda position, ids: min(position, ids.index(ids[position]) + 1)),
    ],
)
def test_a_head_that_looks_at_one_kind_of_place_gets_its_label(monkeypatch, kind, place_of):
    fix_attention(monkeypatch, place_of)
    story = Story([SPECIAL["<bos>"], 10, 11, 12, 13, 14], {})  # no token twice
    scores = head_scores(make_model(), [story])
    own = {name: values[0, 0].item() for name, values in scores.items()}
    assert label_of(own) == kind and own[kind] == pytest.approx(1)
    assert all(own[other] < 0.3 for other in KINDS[:4] if other != kind)


def test_a_head_that_looks_at_the_name_which_comes_next_copies_names(monkeypatch):
    at_the_beginning, inside = 19, 20  # two tokens for the same name
    story = Story([SPECIAL["<bos>"], at_the_beginning, 10, 12, inside, 14], {4: [1]})
    fix_attention(monkeypatch, lambda position, ids: 1 if position == 3 else 0)
    assert head_scores(make_model(), [story])["name copying"][0, 0] == 1
    fix_attention(monkeypatch, lambda position, ids: 2 if position == 3 else 0)
    assert head_scores(make_model(), [story])["name copying"][0, 0] == 0


def test_without_repeated_names_there_is_no_score_for_copying_them():
    scores = head_scores(make_model(), make_stories(5))
    assert scores["name copying"].isnan().all() and not scores["induction"].isnan().any()


def test_resting_on_the_first_token_is_a_label_only_if_there_is_no_other():
    scores = dict.fromkeys(KINDS, 0.0)
    assert label_of(scores) is None
    assert label_of(scores | {"first token": 0.9}) == "first token"
    assert label_of(scores | {"first token": 0.6, "induction": 0.35}) == "induction"
    assert label_of(scores | {"induction": 0.29, "name copying": math.nan}) is None


# Embeddings -----------------------------------------------------------------------------------------------------------


def test_nearest_tokens_are_those_with_the_largest_cosine():
    vectors = torch.tensor([[1.0, 0.0], [0.0, 1.0], [2.0, 0.1], [-1.0, 0.0]])
    near = nearest_tokens(vectors, [0, 1, 2, 3])
    assert [token for token, _ in near[0]] == [2, 1, 3]
    assert near[0][0][1] == pytest.approx(2 / math.sqrt(4.01)) and near[0][2][1] == pytest.approx(-1)


def test_principal_components_explain_the_variance():
    generator = torch.Generator().manual_seed(0)
    vectors = torch.randn(50, 3, generator=generator) * torch.tensor([5.0, 1.0, 0.1]) + 7
    places, shares = principal_components(vectors)
    values = torch.linalg.eigvalsh(torch.cov(vectors.T)).flip(0)
    assert shares == pytest.approx((values / values.sum())[:2].tolist(), rel=1e-4)
    assert_same(places.var(0), values[:2], 1e-4)


# Names ----------------------------------------------------------------------------------------------------------------


def test_repeated_names_are_found_where_their_first_token_is(course):
    tokenizer = load_tokenizer(course / "bpe_tokenizer_tinystories.pkl")
    text = "Tom saw Mia. Then Tom and Mia saw Ben and Mia."
    ids = [tokenizer.special["<bos>"], *tokenizer.encode(text)]
    places = repeated_names(ids, tokenizer, {"Tom", "Mia", "Ben"})
    rests = {tokenizer.decode(ids[place:]): [tokenizer.decode(ids[i:]) for i in places[place]] for place in places}
    assert rests == {
        " Tom and Mia saw Ben and Mia.": [text],
        " Mia saw Ben and Mia.": [text.removeprefix("Tom saw")],
        " Mia.": [text.removeprefix("Tom saw"), " Mia saw Ben and Mia."],
    }
    assert repeated_names(ids, tokenizer, set()) == {}


# The program ----------------------------------------------------------------------------------------------------------


def look(course, monkeypatch, *flags):
    """Run look_inside.py in the folder of a course; return the numbers that --json writes."""
    monkeypatch.chdir(course)
    words = ["look_inside.py", *map(str, flags), "--json", "inside.json", "--dataset", "stories"]
    monkeypatch.setattr("sys.argv", words)
    look_inside.main()
    return json.loads((course / "inside.json").read_text())


@pytest.fixture
def folder(course, tmp_path):
    shutil.copytree(course, tmp_path / "course")
    return tmp_path / "course"


MODEL = "tinystories_model/best_model.pth"


def test_the_page_shows_the_loss_that_the_model_has_on_the_text(folder, monkeypatch):
    content = look(folder, monkeypatch, MODEL, "--text", "Tom had a cat.")
    model, tokenizer = load_model(MODEL)[0], load_tokenizer("bpe_tokenizer_tinystories.pkl")
    ids = [tokenizer.special["<bos>"], *tokenizer.encode("Tom had a cat.")]
    losses = F.cross_entropy(model(torch.tensor([ids[:-1]]))[0], torch.tensor(ids[1:]), reduction="none").tolist()
    assert content["loss"][0] is None and content["loss"][1:] == pytest.approx(losses, abs=1e-4)
    assert content["tokens"][0] == "<bos>" and "".join(content["tokens"][1:]) == "Tom had a cat."
    for loss, rank, alternatives in zip(
        content["loss"][1:], content["rank"][1:], content["alternatives"][1:], strict=True
    ):
        assert len(alternatives) == 10 and alternatives == sorted(alternatives, key=lambda pair: -pair[1])
        if rank <= 10:
            assert alternatives[rank - 1][1] == pytest.approx(math.exp(-loss), abs=1e-4)
    assert content["lens_loss"][-1][:-1] == pytest.approx(losses, abs=1e-4)
    layers, heads = model.config.num_layers, model.config.num_heads
    assert len(content["heads"]) == layers * heads
    assert len(content["ablation"]["rows"]) == layers * heads + layers
    assert len(content["attention"]) == layers and len(content["attention"][0]) == heads
    for head in itertools.chain(*content["attention"]):
        assert [len(row) for row in head] == [*range(1, len(ids) + 1)]
        assert [sum(row) for row in head] == pytest.approx([1] * len(ids), abs=1e-3)
    page = (folder / "inside.html").read_text()
    for section in ("text", "attention", "lens", "ablation", "embeddings"):
        assert f'<section id="{section}-section">' in page


def test_a_story_without_parts_is_the_one_that_the_saved_model_writes(folder, monkeypatch):
    parts = ["--without", "0.0", "--without", "layer:0", "--save", "less.pth"]
    written = ["--prompt", "Tom had", "--max_new_tokens", 12, "--seed", 3]
    texts = look(folder, monkeypatch, MODEL, *parts, *written)["without"]
    assert load_model("less.pth")[1]["step"] == load_model(MODEL)[1]["step"] > 0
    for path, key in ((MODEL, "with_them"), ("less.pth", "without_them")):
        tokenizer = load_tokenizer("bpe_tokenizer_tinystories.pkl")
        writer = Writer(load_model(path, tokenizer)[0], tokenizer, Sampling(max_new_tokens=12, seed=3))
        (same,) = writer.write([story_prompt(writer, "Tom had")], [0])
        assert texts[key] == f"Tom had{without_controls(same.text)}"
    assert texts["with_them"] != texts["without_them"]


def test_kept_models_are_compared_in_the_order_of_their_steps(folder, monkeypatch):
    run = folder / "tinystories_model"
    model, content = load_model(run / "best_model.pth")
    for step in (9, 10, 100):
        save_model(run / f"model-{step}.pth", model, content["tokenizer_fingerprint"], step)
        model.tokens.weight.data *= 2
    (run / "model-2b.pth").write_text("of the student")
    shown = look(folder, monkeypatch, "--run", "tinystories_model", "--watch", "cat")
    assert shown["model"] == "tinystories_model/model-100.pth"
    assert shown["training"]["steps"] == [9, 10, 100]
    assert shown["training"]["moved"] == pytest.approx([0, 1, 3])
    assert list(shown["training"]["losses"]) == ["all tokens", "names that come again", "cat"]
    shuffled = [f"tinystories_model/model-{step}.pth" for step in (100, 9, 10)]
    assert look(folder, monkeypatch, *shuffled, "--watch", "cat") == shown


def test_what_the_program_refuses(folder, monkeypatch):
    other = make_model(vocab_size=load_model(folder / MODEL)[0].config.vocab_size)
    save_model(folder / "other.pth", other, load_model(folder / MODEL)[1]["tokenizer_fingerprint"])
    for flags, reason in (
        ([], "pass one or more model files, or --run"),
        ([MODEL, "--run", "x"], "pass one or more model files, or --run"),
        (["--run", "stories"], "no file model-<step>.pth in stories; train with --keep_models"),
        ([MODEL, "--without", "9.0"], "--without 9.0: no such part"),
        ([MODEL, "--save", "x.pth"], "pass --without too"),
        ([MODEL, "--watch", "cat"], "pass several, or --run"),
        ([MODEL, "--text", " "], "--text is empty"),
        ([MODEL, "--text", "Tom ran. " * 300], "--text: .* tokens, but the model's context"),
        ([MODEL, "other.pth"], "have different shapes"),
        ([MODEL, "tinystories_model/final_model.pth"], "are both of step"),
        ([MODEL, "--output", "no/inside.html"], "cannot write no/inside.html"),
        ([MODEL, "--output", MODEL], "would be overwritten"),
        ([MODEL, "--without", "0.0", "--save", "inside.json"], "would be overwritten"),
        ([MODEL, "--prompt", "Tom"], "pass --without too"),
        ([MODEL, "--seed", "3"], "pass --without too"),
    ):
        with pytest.raises(UserError, match=reason):
            look(folder, monkeypatch, *flags)
    assert not (folder / "inside.html").exists() and not (folder / "inside.json").exists()
