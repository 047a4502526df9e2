"""Why a run could not go on, in one line that says what to do."""

import torch

from common.errors import UserError, file_error, memory_is_full
from training.run_folder import last_checkpoint
from training.settings import TrainingSettings


def explained(error: Exception, job) -> UserError | None:
    """The UserError for what ended a run (a `loop.Job`); None where only a traceback can say it."""
    folder = job.run.folder
    if isinstance(error, UserError):
        return error
    if isinstance(error, OSError):
        error.filename = error.filename or str(folder)
        return UserError(f"{file_error(error)}; {last_checkpoint(folder)}", status=1)
    if memory_is_full(error):
        advice = less_memory(job.settings, job.ranks.count, job.precision.device.type)
        return UserError(f"{advice}; {last_checkpoint(folder, with_command=False)}", status=1)
    if job.ranks.count > 1 and ("peer" in str(error) or isinstance(error, torch.distributed.DistError)):
        return UserError(f"another process of this run has ended; {last_checkpoint(folder)}", status=1)
    return None


def less_memory(settings: TrainingSettings, ranks: int, device: str = "cpu") -> str:
    """What to do where the memory is full: the next smaller batches that make the same steps on so many ranks."""
    size = settings.batch_size
    full = f"the memory of the {device} is full at --batch_size {size}"
    factor = next((n for n in range(2, size // ranks + 1) if size % (n * ranks) == 0), None)
    if factor is None:
        return f"{full}; take a smaller model or a shorter --max_seq_len"
    count = settings.gradient_accumulation_steps * factor
    pair = f"--batch_size {size // factor} --gradient_accumulation_steps {count}"
    return f"{full}; the same steps in less memory: {pair}"


def too_many_bad_steps(count: int, folder) -> UserError:
    """So many steps in a row were skipped."""
    return UserError(
        f"{count} steps in a row had a loss that is not finite; {last_checkpoint(folder, with_command=False)}; "
        "train again with a lower --lr, or in float32 (--no-amp)",
        status=1,
    )
