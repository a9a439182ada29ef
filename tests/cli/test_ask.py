"""`looms ask` inside the test's own process, against a server on loopback."""

import json
import socket
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from loomstream.cli.group import looms
from loomstream.events import Start, Stop, TextDelta, decode
from loomstream.model import Model
from tests.cli.conftest import CANARY, END, Exchange, Stub, answer, delta

pytestmark = pytest.mark.usefixtures("clean_environment")


def ask(*arguments: str, stdin: str | bytes = "", env: dict[str, str] | None = None) -> Result:
    return CliRunner().invoke(looms, ["ask", *arguments], input=stdin, env=env)


def said(result: Result) -> list[str]:
    """Give the lines on standard error, but for those about further tries."""
    return [line for line in result.stderr.splitlines() if not line.startswith("Asking again: try ")]


def test_text_goes_to_stdout_and_figures_to_stderr(stub: Stub) -> None:
    result = ask("hi", *stub.options)
    assert result.exit_code == 0
    assert result.stdout == "Hello\n"
    assert "to first event" in result.stderr
    assert "7 in, 2 out · cost unknown" in result.stderr


def test_the_options_reach_the_wire(stub: Stub) -> None:
    result = ask("hi", *stub.options, "--system", "be brief", "--max-tokens", "9", "--temperature", "0")
    assert result.exit_code == 0
    body = stub.exchanges[0].body
    assert body["messages"] == [{"role": "system", "content": "be brief"}, {"role": "user", "content": "hi"}]
    assert (body["model"], body["temperature"], body["stream"]) == ("stub-1", 0, True)
    assert 9 in (body.get("max_tokens"), body.get("max_completion_tokens"))


def test_what_is_not_given_is_not_sent(stub: Stub) -> None:
    assert ask("hi", *stub.options).exit_code == 0
    assert not stub.exchanges[0].body.keys() & {"temperature", "max_tokens", "max_completion_tokens"}


def test_no_stream_asks_for_the_whole_answer(stub: Stub) -> None:
    message = {"role": "assistant", "content": "All of it"}
    body = {"id": "r", "model": "stub-1", "choices": [{"index": 0, "message": message, "finish_reason": "stop"}]}
    stub.script = answer(json.dumps(body).encode(), content_type="application/json")
    result = ask("hi", *stub.options, "--no-stream")
    assert (result.exit_code, result.stdout) == (0, "All of it\n")
    assert not stub.exchanges[0].body.get("stream")


def test_no_stats_is_quiet(stub: Stub) -> None:
    assert ask("hi", *stub.options, "--no-stats").stderr == ""


# --- the prompt ----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("arguments", "stdin", "prompt"),
    [
        (["hi"], "", "hi"),
        ([], "from a pipe\n", "from a pipe"),
        (["-"], "from a pipe\n", "from a pipe"),
        (["Summarise"], "the text\n", "Summarise\n\nthe text"),
        (["hi"], " \n", "hi"),
        ([], "\N{BYTE ORDER MARK}hällo", "hällo"),
        ([], b"bad \xff byte", "bad \ufffd byte"),
        (["bad \udcff argument"], "", "bad \ufffd argument"),
    ],
)
def test_the_prompt_comes_from_argument_and_pipe(
    stub: Stub, arguments: list[str], stdin: str | bytes, prompt: str
) -> None:
    result = ask(*arguments, *stub.options, stdin=stdin)
    assert result.exit_code == 0
    assert stub.exchanges[0].body["messages"] == [{"role": "user", "content": prompt}]


@pytest.mark.parametrize("arguments", [[], ["-"], ["  "]])
def test_no_prompt_is_an_error(stub: Stub, arguments: list[str]) -> None:
    result = ask(*arguments, *stub.options, stdin="\n")
    assert result.exit_code == 2
    assert "there is no prompt" in result.stderr
    assert stub.exchanges == []


# --- other forms of output -----------------------------------------------------------------------


def test_events_are_json_lines(stub: Stub) -> None:
    result = ask("hi", *stub.options, "--events")
    events = [decode(line) for line in result.stdout.splitlines()]
    assert isinstance(events[0], Start)
    assert [event.text for event in events if isinstance(event, TextDelta)] == ["Hel", "lo"]
    assert isinstance(events[-1], Stop)
    assert result.stderr == ""


def test_json_is_one_object(stub: Stub) -> None:
    result = ask("hi", *stub.options, "--json")
    (line,) = result.stdout.splitlines()
    report = json.loads(line)
    assert (report["text"], report["complete"], report["error"]) == ("Hello", True, None)
    assert report["response"]["usage"]["output_tokens"] == 2
    assert report["response"]["cost"]["amount_usd"] is None
    assert report["timing"]["first_event_s"] > 0
    assert result.stderr == ""


def test_json_after_an_error_has_the_part_that_came(stub: Stub) -> None:
    stub.script = answer(delta("Half an"))
    result = ask("hi", *stub.options, "--json")
    report = json.loads(result.stdout)
    assert result.exit_code == 8
    assert (report["text"], report["complete"]) == ("Half an", False)
    assert report["error"]["type"] == "StreamTruncated"
    assert len(said(result)) == 1


def test_json_before_any_stream_has_the_error() -> None:
    result = ask("hi", "--model", "nosuch:thing", "--json")
    report = json.loads(result.stdout)
    assert result.exit_code == 3
    assert (report["response"], report["error"]["type"]) == (None, "UnknownProvider")


def test_json_and_events_exclude_each_other() -> None:
    assert ask("hi", "--json", "--events").exit_code == 2


def test_reasoning_stays_out_of_a_pipe(stub: Stub) -> None:
    stub.script = answer(delta("hmm", "reasoning_content"), delta("Yes"), END)
    result = ask("hi", *stub.options)
    assert result.stdout == "Yes\n"
    assert "hmm" not in result.stderr


def test_a_pipe_gets_the_text_as_it_came(stub: Stub) -> None:
    stub.script = answer(delta("\x1b[31mred\x07"), END)
    assert ask("hi", *stub.options).stdout == "\x1b[31mred\x07\n"


def test_a_tool_call_is_mentioned(stub: Stub) -> None:
    call = {"index": 0, "id": "c1", "type": "function", "function": {"name": "look", "arguments": '{"a":1}'}}
    choice = {"index": 0, "delta": {"tool_calls": [call]}, "finish_reason": "tool_calls"}
    stub.script = answer(b"data: " + json.dumps({"choices": [choice]}).encode() + b"\n\ndata: [DONE]\n\n")
    result = ask("hi", *stub.options)
    assert result.stdout == ""
    assert 'tool call (not run): look {"a":1}' in result.stderr
    assert "stopped: tool_use" in result.stderr


# --- errors --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("status", "code"), [(401, 4), (403, 4), (400, 5), (404, 5), (422, 5), (429, 6), (503, 6), (500, 6), (302, 8)]
)
def test_a_refusal_is_one_sentence_and_a_code(stub: Stub, status: int, code: int) -> None:
    body = {"error": {"message": "because\n\x1b[31mof this", "type": "some_error"}}
    stub.script = answer(json.dumps(body).encode(), status=status, content_type="application/json")
    result = ask("hi", *stub.options)
    assert result.exit_code == code
    assert result.stdout == ""
    *figures, error = said(result)
    assert error.startswith("Error: ")
    assert "\x1b" not in result.stderr
    assert len(figures) <= 1


@pytest.fixture
def no_retries(clean_environment: object, monkeypatch: pytest.MonkeyPatch) -> None:
    """The waits between attempts are the real ones; `test_a_refusal_is_one_sentence_and_a_code` goes through them."""
    del clean_environment  # it comes first
    monkeypatch.setenv("LOOM_LLM_RATE_LIMIT_MAX_RETRIES", "0")


def test_a_cut_answer_is_shown_and_called_cut(stub: Stub) -> None:
    stub.script = answer(delta("Half an"))
    result = ask("hi", *stub.options)
    assert result.exit_code == 8
    assert result.stdout == "Half an\n"
    assert "not whole" in result.stderr
    assert said(result)[-1].startswith("Error: ")


@pytest.mark.parametrize(
    ("body", "content_type"),
    [
        (b"\xff\xfe\x00garbage\x80", "text/event-stream"),
        (b"\x00\x01\x02", "application/octet-stream"),
        (b"<html><body>Login</body></html>", "text/html"),
        (b"data: {broken\n\n", "text/event-stream"),
        (b"", "text/event-stream"),
    ],
)
@pytest.mark.usefixtures("no_retries")
def test_garbage_is_a_broken_answer(stub: Stub, body: bytes, content_type: str) -> None:
    stub.script = answer(body, content_type=content_type)
    result = ask("hi", *stub.options, "--no-stats")
    assert result.exit_code == 8
    assert len(said(result)) == 1


def test_a_too_large_event_is_a_broken_answer(stub: Stub) -> None:
    stub.script = answer(delta("so far"), b"data: " + b"x" * (17 << 20) + b"\n\n")
    result = ask("hi", *stub.options, "--no-stats")
    assert (result.exit_code, result.stdout) == (8, "so far\n")


@pytest.mark.usefixtures("no_retries")
def test_a_refused_connection_is_a_network_error() -> None:
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        url = f"http://127.0.0.1:{unused.getsockname()[1]}/v1"
        result = ask("hi", "--model", "m", "--base-url", url)
    assert result.exit_code == 7
    assert len(said(result)) == 1


@pytest.mark.parametrize("arguments", [["--provider", "openai"], ["--provider", "groq", "--model", "m"]])
def test_a_missing_key_is_one_sentence(arguments: list[str]) -> None:
    result = ask("hi", *arguments)
    assert result.exit_code == 3
    assert len(said(result)) == 1
    assert f"run `looms config set-key {arguments[1]}_api_key`" in result.stderr
    assert "api_key=" not in result.stderr


def test_a_page_instead_of_an_answer_points_to_the_address(stub: Stub) -> None:
    stub.script = answer(b"<html><body>Not Found</body></html>", status=404, content_type="text/html")
    assert ask("hi", *stub.options).stderr.endswith("(check --base-url)\n")
    stub.script = answer(b'{"error":{"message":"no such model"}}', status=404, content_type="application/json")
    assert ask("hi", *stub.options).stderr.endswith("(check --model)\n")


def test_what_is_slow_once_is_done_before_the_clock_runs(stub: Stub, monkeypatch: pytest.MonkeyPatch) -> None:
    order: list[str] = []

    async def prepare(_: Model) -> None:
        order.append(f"prepared after {len(stub.exchanges)} requests")

    monkeypatch.setattr(Model, "prepare", prepare)
    assert ask("hi", *stub.options).exit_code == 0
    assert order == ["prepared after 0 requests"]


def test_plain_http_to_another_machine_can_be_allowed() -> None:
    arguments = ["hi", "--model", "m", "--base-url", "http://no-such-host.invalid/v1"]
    refused = ask(*arguments)
    assert refused.exit_code == 3
    assert "would send the prompt, and any key, unencrypted" in refused.stderr
    assert "--allow-http" in refused.stderr
    assert "allow_http" not in refused.stderr
    assert ask(*arguments, "--allow-http").exit_code == 7


def test_a_file_name_cannot_control_the_terminal() -> None:
    result = CliRunner().invoke(looms, ["decode", "-p", "openai", "a\x1b]0;owned\x07\x1b[2Jb"])
    assert result.exit_code == 2
    assert "ab" in result.stderr
    assert not set(result.stderr) & set("\x1b\x07")


@pytest.mark.parametrize(
    ("option", "advice"), [("--timeout", "--timeout 0.4"), ("--total-timeout", "--total-timeout S")]
)
def test_a_silent_server_is_given_up(stub: Stub, option: str, advice: str) -> None:
    stub.script = Exchange.wait_closed
    result = ask("hi", *stub.options, option, "0.2")
    assert result.exit_code == 7
    assert result.stderr.count("Error: ") == len(said(result)) == 1
    assert advice in result.stderr
    assert "Timeouts" not in result.stderr


@pytest.mark.parametrize(
    ("arguments", "code", "word"),
    [
        (["--model", "nosuch:thing"], 3, "nosuch"),
        (["--provider", "opnai"], 3, "did you mean 'openai'"),
        (["--provider", "groq"], 3, "groq has no default model: add --model MODEL"),
        (["--base-url", "http://localhost:1"], 3, "add --model MODEL"),
        (["--model", "m", "--base-url", "nonsense"], 3, "is not a URL"),
        (["--model", "ollama"], 2, "use --provider ollama"),
        (["there"], 2, "put the prompt in quotes"),
        (["--anthropic-key", "-"], 2, "standard input is empty: --anthropic-key - reads the key from it"),
        (["--provider", "openai"], 3, "OPENAI_API_KEY"),
        (["--provider", "openai-compatible", "--model", "m"], 3, "pass --base-url https://host/v1 or set LOOM_LLM_"),
        (["--model", "nosuch:thing"], 3, "works as openai-compatible with --base-url"),
        (["--model", "m", "--base-url", "ftp://host"], 3, "https"),
        (["--model", "m", "--base-url", "http://example.com/v1"], 3, "https"),
        (["--model", "gpt-4o"], 2, "names no provider"),
        (["--max-tokens", "0"], 2, "--max-tokens"),
        (["--timeout", "-1"], 2, "--timeout"),
        (["--nonsense"], 2, "--nonsense"),
    ],
)
def test_wrong_arguments_say_what_to_do(arguments: list[str], code: int, word: str) -> None:
    result = ask("hi", *arguments)
    assert result.exit_code == code
    assert word in result.stderr
    assert "Traceback" not in result.stderr


def test_a_missing_model_file_is_named(tmp_path: Path) -> None:
    result = ask("hi", "--model", str(tmp_path / "absent.gguf"))
    assert result.exit_code == 3
    assert "absent.gguf" in result.stderr


def test_no_download_means_none(tmp_path: Path) -> None:
    result = ask("hi", "--no-download", env={"LOOMSTREAM_CACHE_DIR": str(tmp_path)})
    if "runtime" in result.stderr or "pip install" in result.stderr:
        pytest.skip("NOT TESTED: the embedded model needs `pip install 'loomstream[local]'`")
    assert result.exit_code == 3
    assert list(tmp_path.iterdir()) == []
    assert "local:" in result.stderr.splitlines()[0]


# --- keys ----------------------------------------------------------------------------------------


def test_a_key_option_chooses_its_provider_and_warns(stub: Stub) -> None:
    result = ask("hi", "--openai-key", CANARY, env={"OPENAI_BASE_URL": stub.url})
    assert result.exit_code == 0
    assert stub.exchanges[0].headers["authorization"] == f"Bearer {CANARY}"
    assert "other users of this machine can see arguments" in result.stderr
    assert CANARY not in result.output


def test_a_key_on_standard_input_draws_no_warning(stub: Stub) -> None:
    result = ask("hi", "--openai-key", "-", stdin=CANARY + "\n", env={"OPENAI_BASE_URL": stub.url})
    assert stub.exchanges[0].headers["authorization"] == f"Bearer {CANARY}"
    assert "other users" not in result.stderr
    assert CANARY not in result.output


def test_standard_input_cannot_hold_two_things() -> None:
    assert ask("-", "--openai-key", "-", stdin=CANARY).exit_code == 2
    assert ask("hi", "--openai-key", "-", "--anthropic-key", "-", stdin=CANARY).exit_code == 2


def test_a_key_goes_to_its_own_provider_only(stub: Stub) -> None:
    result = ask("hi", *stub.options, "--openai-key", CANARY)
    assert result.exit_code == 0
    assert "authorization" not in stub.exchanges[0].headers
    assert "--openai-key is not used" in result.stderr


def test_a_key_in_the_environment_is_not_sent_to_a_foreign_address(stub: Stub) -> None:
    result = ask("hi", "--model", "m", "--base-url", stub.url, env={"OPENAI_API_KEY": CANARY})
    assert result.exit_code == 0
    assert "authorization" not in stub.exchanges[0].headers


def test_the_model_that_was_chosen_by_itself_is_named(stub: Stub) -> None:
    result = ask("hi", env={"OPENAI_API_KEY": CANARY, "OPENAI_BASE_URL": stub.url})
    assert result.exit_code == 0
    assert said(result)[0].startswith("openai:gpt-4o answers")


def test_the_environment_names_the_provider(stub: Stub) -> None:
    env = {"LOOM_LLM_PROVIDER": "openai", "OPENAI_API_KEY": CANARY, "OPENAI_BASE_URL": stub.url}
    result = ask("hi", "--model", "gpt-x", "--no-stats", env=env)
    assert (result.exit_code, result.stderr) == (0, "")
    assert stub.exchanges[0].body["model"] == "gpt-x"


@pytest.mark.parametrize("form", [[], ["--json"], ["--events"]])
def test_a_refused_key_is_not_shown(stub: Stub, form: list[str]) -> None:
    body = {"error": {"message": "Incorrect API key provided.", "code": "invalid_api_key"}}
    stub.script = answer(json.dumps(body).encode(), status=401, content_type="application/json")
    result = ask("hi", *form, env={"OPENAI_API_KEY": CANARY, "OPENAI_BASE_URL": stub.url})
    assert result.exit_code == 4
    assert CANARY not in result.output


# --- files, tools, schemas -----------------------------------------------------------------------


def test_files_go_before_the_words(stub: Stub, tmp_path: Path) -> None:
    (tmp_path / "a.png").write_bytes(b"\x89PNG\r\n\x1a\n" + b"0" * 8)
    assert ask("What is it?", *stub.options, "--attach", str(tmp_path / "a.png")).exit_code == 0
    assert [part["type"] for part in stub.exchanges[0].body["messages"][0]["content"]] == ["image_url", "text"]
    refused = ask("What is it?", *stub.options, "--attach", str(tmp_path / "b.png"))
    assert refused.exit_code == 2
    assert "b.png cannot be read" in refused.stderr


def calling(exchange: Exchange) -> None:
    """Call `add`, then say what it gave."""
    last = exchange.body["messages"][-1]
    if last["role"] == "tool":
        answer(delta(f"That is {last['content']}"), END)(exchange)
        return
    call = {"index": 0, "id": "c1", "type": "function", "function": {"name": "add", "arguments": '{"a":1,"b":2}'}}
    choice = {"index": 0, "delta": {"tool_calls": [call]}, "finish_reason": "tool_calls"}
    body = {"choices": [choice], "usage": {"prompt_tokens": 5, "completion_tokens": 3}}
    answer(b"data: " + json.dumps(body).encode() + b"\n\ndata: [DONE]\n\n")(exchange)


def test_tools_of_a_file_are_run(stub: Stub, tmp_path: Path) -> None:
    program = 'def add(a: int, b: int) -> int:\n    """Add."""\n    return a + b\n\n\ndef _not_a_tool() -> None: ...\n'
    (tmp_path / "tools.py").write_text(program)
    stub.script = calling
    arguments = ("1 + 2?", *stub.options, "--tools", str(tmp_path / "tools.py"))
    result = ask(*arguments)
    assert (result.exit_code, result.stdout) == (0, "That is 3\n")
    assert [tool["function"]["name"] for tool in stub.exchanges[0].body["tools"]] == ["add"]
    assert result.stderr.splitlines()[:2] == ['tool call: add {"a":1,"b":2}', "add → 3"]
    assert "12 in, 5 out" in result.stderr
    report = json.loads(ask(*arguments, "--json").stdout)
    assert (report["text"], report["usage"]["input_tokens"]) == ("That is 3", 12)
    kinds = [json.loads(line)["type"] for line in ask(*arguments, "--events").stdout.splitlines()]
    assert kinds.count("turn_start") == 2
    assert kinds[-1] == "run_stop"


def test_a_run_that_ends_before_its_answer_is_an_error(stub: Stub, tmp_path: Path) -> None:
    stub.script = calling
    (tmp_path / "tools.py").write_text('import loomstream as ls\n\nTOOLS = [ls.Tool("add")]\n')
    result = ask("1 + 2?", *stub.options, "--tools", str(tmp_path / "tools.py"))
    assert result.exit_code == 2
    assert "Error: the model called a tool that has no function" in result.stderr
    loop = 'def add(a: int, b: int) -> None:\n    """Add."""\n    raise ValueError("again")\n'
    (tmp_path / "tools.py").write_text(loop)

    def again(exchange: Exchange) -> None:
        exchange.body["messages"] = exchange.body["messages"][:1]
        calling(exchange)

    stub.script = again
    endless = ask("1 + 2?", *stub.options, "--tools", str(tmp_path / "tools.py"), "--no-stats")
    assert endless.exit_code == 1
    assert "no answer came within 50 turns" in endless.stderr


def test_an_answer_of_a_schema(stub: Stub, tmp_path: Path) -> None:
    schema = {"title": "Two rivers", "type": "object", "properties": {"a": {"type": "string"}}, "required": ["a"]}
    (tmp_path / "rivers.json").write_text(json.dumps(schema))
    arguments = ("Name one", *stub.options, "--output-schema", str(tmp_path / "rivers.json"))
    stub.script = answer(delta('{"a":'), delta('"Po"}'), END)
    result = ask(*arguments)
    assert (result.exit_code, json.loads(result.stdout)) == (0, {"a": "Po"})
    assert "Two_rivers" in json.dumps(stub.exchanges[0].body)
    stub.script = answer(delta("The Po."), END)
    broken = ask(*arguments, "--json")
    assert broken.exit_code == 8
    assert json.loads(broken.stdout)["error"]["type"] == "InvalidOutput"
    (tmp_path / "rivers.json").write_text("[]")
    assert ask(*arguments).exit_code == 2
