"""`kzoo completion`: a script for a shell, which asks `kzoo __complete WORD...` for what the last word may become."""

from collections.abc import Iterable, Sequence
from typing import Any, get_args, get_type_hints

from kzoo.commands.catalogue import read_catalogue
from kzoo.commands.forms import FORMS, Completion
from kzoo.recipe import flag_types, list_recipes

# Of files and folders the shell knows more: it completes them where nothing else is said.
SCRIPTS = {
    "bash": """_kzoo() {
    local IFS=$'\\n'
    COMPREPLY=($(compgen -W "$(kzoo __complete "${COMP_WORDS[@]:1:COMP_CWORD}")" -- "${COMP_WORDS[COMP_CWORD]}"))
}
complete -o default -F _kzoo kzoo""",
    "zsh": """#compdef kzoo
_kzoo() {
    local -a found
    found=(${(f)"$(kzoo __complete "${(@)words[2,CURRENT]}")"})
    compadd -a found
    _files
}
compdef _kzoo kzoo""",
    "fish": "complete -c kzoo -a '(kzoo __complete (commandline -opc)[2..] (commandline -ct))'",
}
OF_MODELS = ("list", "info", "train", "predict", "explain", "export", "check", "bench")
OF_RECIPES = ("train", "plan", "recipes")


def run(form: Completion) -> None:
    print(SCRIPTS[form.shell])


def complete(words: Sequence[str], commands: Iterable[str]) -> list[str]:
    """What the last of some words behind `kzoo` may become.

    Args:
        words: that were typed, the last of them in part.
        commands: names of all.

    Example:
        >>> complete(["info", "resnet18_c"], COMMANDS)
        ['resnet18_cbam']
    """
    *before, word = words or [""]
    if not before:
        return _starting(word, [*commands, "--help", "--version"])
    command, *given = before
    if command == "train":
        known = flag_types()
    elif command in FORMS:
        known = get_type_hints(FORMS[command]) | (flag_types() if command == "plan" else {})
    else:
        return []
    if word.startswith("-"):
        options = [f"--{name.replace('_', '-')}" for name in known]
        return _starting(word, [*options, "--json", "--help"] if command == "train" else [*options, "--help"])
    if given and given[-1].startswith("--"):
        return _starting(word, _values(known, given[-1]))
    if command == "completion":
        return _starting(word, SCRIPTS)
    if given and command in OF_RECIPES:
        return []  # pictures: files
    names = [model.name for model in read_catalogue()] if command in OF_MODELS else []
    return _starting(word, [*list_recipes(), *names] if command in OF_RECIPES else names)


def _values(known: dict[str, Any], option: str) -> list[str]:
    """What an option may be, where it is one of a few, by the types of all."""
    hint = known.get(option.removeprefix("--").replace("-", "_"))
    found, waiting = [], [hint]
    while waiting:
        inside = get_args(waiting.pop())
        found += [each for each in inside if isinstance(each, str)]
        waiting += [each for each in inside if get_args(each)]
    return found


def _starting(word: str, choices: Iterable[str]) -> list[str]:
    return [choice for choice in choices if choice.startswith(word)]
