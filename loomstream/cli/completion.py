"""`looms completion SHELL`: the script that makes a shell complete what `completion_values` knows.

Contract: prints click's script for zsh and fish, and one of ours for bash, whose words end at colons, so that
`openai:gpt` would be three. No shell is started, nothing is written.
"""

from __future__ import annotations

import os

import click
from click.shell_completion import BashComplete, add_completion_class, get_completion_class, split_arg_string

from loomstream.cli.help import Teaching, examples

_VARIABLE = "_LOOMS_COMPLETE"
_HOME = {
    "bash": 'eval "$(looms completion bash)"     in ~/.bashrc',
    "zsh": 'eval "$(looms completion zsh)"      in ~/.zshrc',
    "fish": "looms completion fish | source      in ~/.config/fish/config.fish",
}
_EPILOG = examples(*_HOME.values())

_BASH = """\
%(complete_func)s() {
    local line="${COMP_LINE:0:COMP_POINT}" response before
    COMPREPLY=()
    while IFS=, read -r kind value; do
        case "$kind" in
            dir) compopt -o dirnames 2>/dev/null ;;
            file) compopt -o default 2>/dev/null ;;
            plain) COMPREPLY+=("$value") ;;
        esac
    done < <(LOOMS_LINE="$line" %(complete_var)s=bash_complete "${COMP_WORDS[0]}")
    before="${line##*[[:space:]]}"
    if [[ "$before" == *:* && "$COMP_WORDBREAKS" == *:* ]]; then
        before="${before%%"${before##*:}"}"
        COMPREPLY=("${COMPREPLY[@]#"$before"}")
    fi
    if [[ ${#COMPREPLY[@]} -eq 1 && "${COMPREPLY[0]}" == *: ]]; then compopt -o nospace 2>/dev/null; fi
}
complete -o nosort -F %(complete_func)s looms loomstream
"""


class _Bash(BashComplete):
    """Reads the whole line instead of bash's words."""

    source_template = _BASH

    def source(self) -> str:
        """Give the script, without a look at which bash is installed."""
        return self.source_template % self.source_vars()

    def get_completion_args(self) -> tuple[list[str], str]:
        """Give the words before the one that is being written, and that one."""
        line = os.environ.get("LOOMS_LINE", "")
        words = split_arg_string(line)
        incomplete = "" if not words or line[-1:].isspace() else words.pop()
        return words[1:], incomplete


def register() -> None:
    """Have click use our bash."""
    add_completion_class(_Bash)


@click.command(cls=Teaching, epilog=_EPILOG)
@click.argument("shell", type=click.Choice(list(_HOME)))
@click.option("--json", is_flag=True, help="Print the script as a JSON object.")
@click.pass_context
def completion(context: click.Context, shell: str, *, json: bool) -> None:
    """Print what makes a shell complete commands, options, providers, models, settings and the names of keys."""
    register()
    kind = get_completion_class(shell)
    if kind is None:
        msg = f"there is no completion for {shell}"
        raise click.UsageError(msg)
    script = kind(context.find_root().command, {}, "looms", _VARIABLE).source()
    if json:
        import msgspec  # noqa: PLC0415 (only where it is asked for)

        from loomstream.cli.output import write_json_line  # noqa: PLC0415 (the same)

        write_json_line(msgspec.json.encode({"shell": shell, "script": script}))
    else:
        click.echo(script, nl=False)
