"""The recipe's section on texts: template and budgets, in training and at evaluation."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from jaxrank.errors import InputError
from jaxrank.text.templates import TextConfig, Wording, get_template, resolve_template


@dataclass(frozen=True)
class TextOptions:
    """Template and budgets; what is null comes from the checkpoint, or for a random start from the
    family (its own template, 512 tokens).
    """

    template: str | None = None
    """Name of the prompt template: pair, paper, authors-code, ssm-rerankers, or one wording."""

    max_length: int | None = None
    """Longest sequence in tokens; longer pairs are cut and counted. The papers used 512."""

    query_length: int | None = None
    """Tokens kept for all that is not the document's segment; not for `pair`."""

    evaluation_template: str | None = None
    """Template of the dev measure and of the saved model, where it is not that of training. P1's
    code gave another one at evaluation: authors-code-evaluation. Null: as in training."""

    evaluation_max_length: int | None = None
    """Longest sequence at evaluation. P1's code gave decoders 768 tokens there. Null: as in
    training."""

    def resolve(self, base: TextConfig, *, wording: Wording) -> TextConfig:
        """`base` with what is not null; another template does not take over its query budget."""
        with text_options_named():
            return _change(base, self.template, self.max_length, self.query_length, wording)

    def resolve_evaluation(self, trained: TextConfig, *, wording: Wording) -> TextConfig:
        """How the model reads texts once it is trained on `trained`.

        Raises:
            InputError: the template adds tokens that training does not show.
        """
        template, max_length = self.evaluation_template, self.evaluation_max_length
        with text_options_named(is_evaluation=True):
            text = _change(trained, template, max_length, None, wording)
        known = get_template(trained.template).added_tokens
        if unknown := set(get_template(text.template).added_tokens) - set(known):
            raise InputError(
                f"text.evaluation_template: {text.template} adds {', '.join(sorted(unknown))} to "
                f"the vocabulary, which training on {trained.template} never shows"
            )
        return text


@contextmanager
def text_options_named(*, is_evaluation: bool = False) -> Iterator[None]:
    """Name the recipe's options in errors about templates and budgets, which know of none."""
    try:
        yield
    except InputError as error:
        message = str(error)
        name = message.partition(" ")[0].rstrip(":")
        if name in ("template", "max_length") and is_evaluation:
            message = f"evaluation_{message}"
        if name in ("template", "max_length", "query_length"):
            message = f"text.{message}"
        raise InputError(message) from None


def _change(
    base: TextConfig,
    template: str | None,
    max_length: int | None,
    query_length: int | None,
    wording: Wording,
) -> TextConfig:
    name = resolve_template(template or base.template, wording=wording)
    kept = base.query_length if name == base.template else None
    return TextConfig(
        template=name,
        max_length=base.max_length if max_length is None else max_length,
        query_length=kept if query_length is None else query_length,
    )
