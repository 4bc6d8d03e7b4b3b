"""What libraries say is shown, but for what is known and no user can mend."""

from __future__ import annotations

import warnings

from training.run.trainer import quieten


def test_only_known_warnings_of_their_own_modules_are_left_out() -> None:
    said = [
        ("use FSDP2 instead", FutureWarning, "composer.trainer.trainer"),
        ("No device id is provided via `init_process_group` or `barrier`", UserWarning, "torch.distributed.c10d"),
        ("the learning rate is odd", UserWarning, "composer.trainer.trainer"),
        ("an array is not writable", UserWarning, "training.data.loader"),
        ("this will be an error", FutureWarning, "training.data.loader"),
        ("No device id is provided", UserWarning, "training.run.trainer"),
    ]
    with warnings.catch_warnings(record=True) as shown:
        warnings.resetwarnings()
        quieten()
        for number, (message, category, module) in enumerate(said):
            warnings.warn_explicit(message, category, f"{module}.py", number, module=module)
    assert [str(each.message) for each in shown] == [message for message, *_ in said[2:]]
