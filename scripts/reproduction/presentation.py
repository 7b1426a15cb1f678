"""What a user reads before anything is done: the plan, what it costs, and what is missing."""

from collections.abc import Callable

from scripts.reproduction.records import Records
from scripts.reproduction.run import describe_steps
from scripts.reproduction.settings import Reproduction
from scripts.reproduction.training_plan import describe_cost, describe_disk, read_recipe


def present(
    reproduction: Reproduction,
    records: Records,
    *,
    with_commands: bool,
    say: Callable[[str], None],
) -> None:
    """Say it all.

    Raises:
        InputError: a step was done otherwise, see `Records.is_done`; or an option of the training
            that it would refuse.
    """
    say(f"{reproduction.title}\nin {reproduction.output}\n")
    for line in describe_steps(reproduction.steps, records, with_commands=with_commands):
        say(line)
    if missing := (*reproduction.missing, *reproduction.open_options):
        say("\nmissing:")
        for line in missing:
            say(f"  {line}")
    train = next((step for step in reproduction.steps if step.module == "jaxrank.train"), None)
    is_open = train is not None and not records.is_done(train) and not reproduction.open_options
    if train is not None and is_open:
        recipe = read_recipe(train)
        say("")
        say(
            describe_cost(
                recipe,
                layout=reproduction.layout,
                sets=reproduction.sets,
                depth=reproduction.depth,
            )
        )
    say(f"{describe_disk(reproduction.output)}\n")
