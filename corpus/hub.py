"""Requests to the Hugging Face hub, with a time limit and one-line errors.

In reading order: `hub_files`, the files of a model; `hub_errors`, one line for what the libraries raise; `within`, the
time limit.  `corpus/sources.py` uses the last two to read data sets.
"""

import contextlib
import errno
import os
import queue
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from common.console import log
from common.errors import UserError, file_error, reason_of
from common.files import temporary_cache_folder

HUB_SECONDS = 20  # to wait for the hub; without a network, a machine may hang in many places


def hub_files(name: str, choices: list[list[str]], advice: str) -> list[Path]:
    """Download files of a model on the hub, and return their paths.

    choices: lists of file names; the first list that the model has is used.
    """
    try:
        import huggingface_hub.constants
        import huggingface_hub.errors
    except ImportError:
        raise UserError(f"{name} is on the hub, which needs the package datasets; install it; {advice}") from None
    with hub_errors("tokenizer", name, advice):
        wanted = " nor ".join(" with ".join(files) for files in choices)
        revision = None
        offline = huggingface_hub.constants.HF_HUB_OFFLINE
        if not offline:
            model = within(HUB_SECONDS, huggingface_hub.HfApi().model_info, name, timeout=10)
            revision = model.sha
            names = {file.rfilename for file in model.siblings}
            choices = [files for files in choices if names.issuperset(files)]
        missing = huggingface_hub.errors.EntryNotFoundError if offline else ()
        for files in choices:
            with contextlib.suppress(missing):  # offline, only asking for a file shows whether it was downloaded
                return [Path(huggingface_hub.hf_hub_download(name, file, revision=revision)) for file in files]
        raise UserError(f"{name} has neither {wanted}{' among its downloads' if offline else ''}; {advice}")


@contextlib.contextmanager
def hub_errors(kind: str, name: str, advice: str) -> Iterator[None]:
    """Report errors of the hub, the network and the libraries in one line; advice: what to do instead."""
    import huggingface_hub.errors
    import huggingface_hub.utils

    if not sys.stderr.isatty():
        huggingface_hub.utils.disable_progress_bars()
    folder = os.environ.get("HF_HOME")
    if folder == str(temporary_cache_folder("huggingface")):
        log.info(f"downloads from the hub go to {folder}, for temporary files; set HF_HOME to keep them elsewhere")
    try:
        yield
    except UserError:
        raise
    except huggingface_hub.errors.GatedRepoError:
        raise UserError(f"{name} is gated: accept its terms on the hub, then run `hf auth login`; {advice}") from None
    except (huggingface_hub.errors.RepositoryNotFoundError, huggingface_hub.errors.HFValidationError):
        raise UserError(f"no {kind} {name} here or on the hub; check the name; {advice}") from None
    except Exception as error:  # the network, the hub, the disk: each library raises its own kinds of errors
        if isinstance(error, OSError) and error.errno in (errno.EACCES, errno.EROFS):
            raise UserError(f"{file_error(error)}, and set HF_HOME to it: the hub's libraries write there") from None
        reason = f"{type(error).__name__}: {reason_of(error)}"
        raise UserError(f"could not read {name} from the hub ({reason}); {advice}") from None


def within(seconds: float, function: Callable, *args, **options) -> Any:
    """Return function(*args, **options).  Raises TimeoutError if this takes more seconds than allowed."""
    results = queue.Queue()

    def call():
        try:
            results.put((function(*args, **options), None))
        except Exception as error:  # raised again below, where it can be caught
            results.put((None, error))

    threading.Thread(target=call, daemon=True).start()
    try:
        result, error = results.get(timeout=seconds)
    except queue.Empty:
        raise TimeoutError(f"no answer within {seconds} s") from None
    if error:
        raise error
    return result
