"""What a user reads before anything is done: the plan, what it costs, and what is missing."""

from collections.abc import Callable

from scripts.reproduction.disk import check_disk
from scripts.reproduction.records import Records
from scripts.reproduction.run import describe_steps
from scripts.reproduction.settings import Reproduction
from scripts.reproduction.training_plan import describe_cost, estimate_training, read_recipe


def present(
    reproduction: Reproduction,
    records: Records,
    *,
    with_commands: bool,
    say: Callable[[str], None],
) -> int:
    """Say it all; the number of things that are missing.

    Raises:
        InputError: a step was done otherwise, see `Records.is_done`; or an option of the training
            that it would refuse.
    """
    say(f"{reproduction.title}\nin {reproduction.output}\n")
    for line in describe_steps(reproduction.steps, records, with_commands=with_commands):
        say(line)
    cost_lines, checkpoints_gib = _estimate(reproduction, records)
    disk = check_disk(
        reproduction.output, reproduction.steps, records, checkpoints_gib=checkpoints_gib
    )
    missing = (*reproduction.missing, *map(str, reproduction.open_options), *disk.missing())
    if missing:
        say("\nmissing:")
        for line in missing:
            say(f"  {line}")
    if cost_lines:
        say(f"\n{cost_lines}")
    say(f"{disk.describe()}\n")
    return len(missing)


def _estimate(reproduction: Reproduction, records: Records) -> tuple[str, float | None]:
    """What the training costs if it is to be done, in words, and its checkpoints' GiB if known."""
    train = next((step for step in reproduction.steps if step.module == "jaxrank.train"), None)
    if train is None or records.is_done(train):
        return "", None
    recipe = read_recipe(train, reproduction.open_options)
    if recipe is None:
        return "", None
    cost = estimate_training(recipe, is_own=reproduction.num_questions is None)
    lines = describe_cost(
        cost, recipe, num_questions=reproduction.num_questions or 0, depth=reproduction.depth
    )
    return lines, None if isinstance(cost, str) else cost.disk_gib
