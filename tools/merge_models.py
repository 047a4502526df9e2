"""Merge models of one shape: average their weights, or add what one has learned to another.

    python tools/merge_models.py story.pth chat.pth --weight 0.5                        # A + 0.5 (B - A): the average
    python tools/merge_models.py A.pth tuned.pth --weight 1 --minus before_tuning.pth   # A + 1 (B - C)

The second form is task arithmetic (Ilharco et al. 2023): B - C is what B learned while it was tuned from C.  A negative
weight takes it away from A.  Merging works only for models that were trained from the same weights: others have put the
same abilities into different places.
"""

import argparse
import dataclasses
import math
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from common.console import log
from common.errors import UserError
from common.files import check_outputs
from common.flags import FlagParser
from common.program import run_program
from common.weights_files import load_model, save_model
from model import ModelConfig, Transformer


def parse_args(argv: list[str] | None = None) -> argparse.Namespace:
    parser = FlagParser(__doc__)
    parser.usage = "python tools/merge_models.py A B [flags]"
    parser.add_argument("a", metavar="A", help="a model file (.pth)")
    parser.add_argument("b", metavar="B", help="another one, of the same shape and tokenizer")
    parser.add_argument("--weight", type=float, default=0.5, help="how much of the difference (default: %(default)s)")
    parser.add_argument("--minus", metavar="C", help="add B - C instead of B - A")
    parser.add_argument("--output", default="merged.pth", metavar="FILE", help="default: %(default)s")
    args = parser.parse_args(argv)
    if not math.isfinite(args.weight):
        raise UserError(f"--weight must be a finite number, not {args.weight}")
    return args


def shape_of(model: Transformer) -> ModelConfig:
    """Return a model's config without its dropout, which does not change what the weights mean."""
    return dataclasses.replace(model.config, dropout=0.0)


def main() -> None:
    args = parse_args()
    check_outputs([args.output], [args.a, args.b, args.minus])
    loaded = [load_model(path) for path in (args.a, args.b, args.minus) if path]
    for model, content in loaded[1:]:
        if shape_of(model) != shape_of(loaded[0][0]):
            raise UserError("the models have different shapes; merge models of one shape")
        if content["tokenizer_fingerprint"] != loaded[0][1]["tokenizer_fingerprint"]:
            raise UserError("the models have different tokenizers; merge models that were trained with the same one")
    a, b, *minus = (model.state_dict() for model, _ in loaded)
    c = minus[0] if minus else a
    weights = {name: a[name] + args.weight * (b[name] - c[name]) for name in a}
    save_model(args.output, loaded[0][0], loaded[0][1]["tokenizer_fingerprint"], weights=weights)
    log.info(f"wrote {args.output}")


if __name__ == "__main__":
    run_program(main)
