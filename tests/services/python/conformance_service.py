"""The tool service that the official conformance suite expects, on the package `drawbridge`.

Its contract is `tests/proto/conformance.proto`.
"""

import argparse
import asyncio
import base64
import dataclasses
import json
import shutil
import signal
import sys
import tempfile
from pathlib import Path

import drawbridge
from compiled import compiled
from drawbridge import ask
from drawbridge.mcp.v1 import content_pb2 as mcp
from drawbridge.mcp.v1.interaction_pb2 import Sampling, SamplingMessage

PROTO = Path(__file__).parents[2] / "proto" / "conformance.proto"
with tempfile.TemporaryDirectory() as folder:
    shutil.copy(PROTO, folder)
    compiled(Path(folder))

import conformance_pb2 as pb  # noqa: E402
import conformance_pb2_grpc as rpc  # noqa: E402

CONTRACT = Path(pb.__file__).with_suffix(".binpb")
PNG = base64.b64decode(
    "iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR42mP8/5+hHgAHggJ/PchI7wAAAABJRU5ErkJggg=="
)
WAV = base64.b64decode("UklGRiQAAABXQVZFZm10IBAAAAABAAEARKwAAIhYAQACABAAZGF0YQAAAAA=")
PAUSE_SECONDS = 0.05


def text(message):
    return mcp.ContentBlock(text=mcp.TextContent(text=message))


def image():
    return mcp.ContentBlock(image=mcp.ImageContent(data=PNG, mime_type="image/png"))


def resource(uri, mime_type, contents):
    return mcp.ContentBlock(
        resource=mcp.ResourceContents(uri=uri, mime_type=mime_type, text=contents)
    )


def reply(*content):
    return pb.Answer(result=mcp.ToolResult(content=content))


def reply_text(message):
    return reply(text(message))


def question(**requests):
    return pb.Answer(input_required=ask.required(**requests))


def prompt(*content):
    messages = [mcp.PromptMessage(role=mcp.ROLE_USER, content=block) for block in content]
    return pb.Prompt(messages=messages)


def contents(message):
    return pb.Contents(contents=mcp.ResourceContents(text=message))


def named(message, name="name", type="string"):
    return ask.form(message, {name: {"type": type}}, name)


def write(message):
    asked = SamplingMessage(role=mcp.ROLE_USER, content=[text(message)])
    return ask.sampling(Sampling(messages=[asked], max_tokens=100))


def written(answers, name):
    sampled = answers.sampling(name)
    return sampled.content[0].text.text if sampled else None


def outcome(prefix, request, message, properties, *required):
    """Asks a form once, and reports the person's action and content."""
    answer = ask.Answers(request.interaction).form("answer")
    if answer is None:
        return question(answer=ask.form(message, properties, *required))
    action = "accept" if answer.accepted else "decline" if answer.declined else "cancel"
    content = json.dumps(answer.values, sort_keys=True, separators=(",", ":"))
    return reply_text(f"{prefix}: action={action}, content={content}")


def titled(what):
    names = enumerate(["First", "Second", "Third"], 1)
    return [{"const": f"value{number}", "title": f"{name} {what}"} for number, name in names]


DEFAULTS = {
    "name": {"type": "string", "default": "John Doe"},
    "age": {"type": "integer", "default": 30},
    "score": {"type": "number", "default": 95.5},
    "status": {"type": "string", "enum": ["active", "inactive", "pending"], "default": "active"},
    "verified": {"type": "boolean", "default": True},
}
ENUMS = {
    "untitledSingle": {"type": "string", "enum": ["option1", "option2", "option3"]},
    "titledSingle": {"type": "string", "oneOf": titled("Option")},
    "legacyEnum": {
        "type": "string",
        "enum": ["opt1", "opt2", "opt3"],
        "enumNames": ["Option One", "Option Two", "Option Three"],
    },
    "untitledMulti": {
        "type": "array",
        "items": {"type": "string", "enum": ["option1", "option2", "option3"]},
    },
    "titledMulti": {"type": "array", "items": {"anyOf": titled("Choice")}},
}
USER = {
    "username": {"type": "string", "description": "User's response"},
    "email": {"type": "string", "description": "User's email address"},
}


class Tools:
    """Tools without questions."""

    async def SimpleText(self, request, context):
        return reply_text("This is a simple text response for testing.")

    async def ImageContent(self, request, context):
        return reply(image())

    async def AudioContent(self, request, context):
        audio = mcp.AudioContent(data=WAV, mime_type="audio/wav")
        return reply(mcp.ContentBlock(audio=audio))

    async def EmbeddedResource(self, request, context):
        contents = "This is an embedded resource content."
        return reply(resource("test://embedded-resource", "text/plain", contents))

    async def MultipleContentTypes(self, request, context):
        data = '{"test":"data","value":123}'
        mixed = resource("test://mixed-content-resource", "application/json", data)
        return reply(text("Multiple content types test:"), image(), mixed)

    async def ErrorHandling(self, request, context):
        raise drawbridge.FailedPrecondition("This tool intentionally returns an error for testing")

    async def ToolWithProgress(self, request, context):
        for done in (0, 50, 100):
            yield pb.Event(progress=drawbridge.Progress(progress=done, total=100))
            await asyncio.sleep(PAUSE_SECONDS)
        yield pb.Event(result=reply_text("done").result)

    async def ToolWithLogging(self, request, context):
        for line in ("execution started", "processing data", "execution completed"):
            message = drawbridge.LogMessage(level=drawbridge.LogMessage.LEVEL_INFO)
            message.data.string_value = f"Tool {line}"
            yield pb.Event(log=message)
            await asyncio.sleep(PAUSE_SECONDS)
        yield pb.Event(result=reply_text("done").result)

    LoggingTool = ToolWithLogging

    async def Reconnection(self, request, context):
        return reply_text("done")

    async def TriggerToolChange(self, request, context):
        return self.change(b"Returns a text.")

    async def TriggerPromptChange(self, request, context):
        return self.change(b"A prompt that needs input.")

    def change(self, description):
        """Changes the contract from the next start on: a description is in capitals, or again not.
        """
        if not self.fixed:
            contract, capitals = CONTRACT.read_bytes(), description.upper()
            pair = (description, capitals) if description in contract else (capitals, description)
            CONTRACT.write_bytes(contract.replace(*pair, 1))
            self.restart.set()
        return reply_text("it changes")

    async def CustomHeader(self, request, context):
        return reply_text(request.value)

    async def JsonSchema(self, request, context):
        return reply_text("done")

    async def Scoped(self, request, context):
        return reply_text("scoped")

    async def WhoAmI(self, request, context):
        caller = drawbridge.caller()
        return reply_text(f"{caller.subject} of {caller.tenant}")

    async def SlowWork(self, request, context):
        await asyncio.sleep((request.milliseconds + request.silent_milliseconds) / 1000)
        yield pb.Event(result=reply_text("worked").result)

    async def FailWith(self, request, context):
        raise drawbridge.Unavailable(request.message)

    async def EchoValues(self, request, context):
        return request


class Questions:
    """Tools that ask before they reply."""

    async def Sampling(self, request, context):
        found = written(ask.Answers(request.interaction), "answer")
        if found is None:
            return question(answer=write(request.prompt))
        return reply_text(f"LLM response: {found}")

    async def Elicitation(self, request, context):
        return outcome("User response", request, request.message, USER, *USER)

    async def ElicitationSep1034Defaults(self, request, context):
        return outcome("Elicitation completed", request, "Please fill in the form", DEFAULTS)

    async def ElicitationSep1330Enums(self, request, context):
        return outcome("Elicitation completed", request, "Please choose", ENUMS)

    async def StreamingElicitation(self, request, context):
        if "answer" in ask.Answers(request.interaction):
            yield pb.Event(result=reply_text("done").result)
        else:
            yield pb.Event(input_required=ask.required(answer=named("Please answer")))

    async def OpenPage(self, request, context):
        answer = ask.Answers(request.interaction).page("page")
        if answer is not None and answer.accepted:
            return reply_text("it will be opened")
        return question(page=ask.page("Connect your account.", "https://pages.test/connect"))

    async def ClientExtensions(self, request, context):
        return reply_text(str(request.interaction.client.extensions))

    async def MissingCapability(self, request, context):
        return await self.InputRequiredResultSampling(request, context)

    async def InputRequiredResultElicitation(self, request, context):
        answer = ask.Answers(request.interaction).form("user_name")
        if answer is None or not answer.accepted or "name" not in answer.values:
            return question(user_name=named("What is your name?"))
        return reply_text(f"Hello, {answer.values['name']}!")

    async def InputRequiredResultSampling(self, request, context):
        found = written(ask.Answers(request.interaction), "capital_question")
        asked = "What is the capital of France?"
        return reply_text(found) if found else question(capital_question=write(asked))

    async def InputRequiredResultListRoots(self, request, context):
        found = ask.Answers(request.interaction).roots("client_roots")
        return question(client_roots=ask.roots()) if found is None else reply_text(" ".join(found))

    async def InputRequiredResultRequestState(self, request, context):
        answers = ask.Answers(request.interaction)
        answer = answers.form("confirm")
        if answer is None or not answer.accepted:
            form = named("Please confirm", "ok", "boolean")
            return pb.Answer(input_required=ask.required(confirm=form, state=b"the state"))
        return reply_text("state-ok" if answers.state == b"the state" else "state-lost")

    InputRequiredResultTamperedState = InputRequiredResultRequestState

    async def InputRequiredResultMultipleInputs(self, request, context):
        answers = ask.Answers(request.interaction)
        name, greeting = answers.form("user_name"), written(answers, "greeting")
        found = answers.roots("client_roots")
        if name is not None and name.accepted and greeting and found is not None:
            return reply_text(f"{name.values['name']}: {greeting} ({len(found)} roots)")
        asked = ask.required(
            state=b"several",
            user_name=named("What is your name?"),
            greeting=write("Write a greeting."),
            client_roots=ask.roots(),
        )
        return pb.Answer(input_required=asked)

    async def InputRequiredResultMultiRound(self, request, context):
        answers = ask.Answers(request.interaction)
        if answers.state == b"round 2" and answers.form("step2").accepted:
            return reply_text("done in two rounds")
        if answers.state == b"round 1" and answers.form("step1").accepted:
            form = named("What is your favourite colour?", "color")
            return pb.Answer(input_required=ask.required(step2=form, state=b"round 2"))
        form = named("What is your name?")
        return pb.Answer(input_required=ask.required(step1=form, state=b"round 1"))

    async def InputRequiredResultCapabilities(self, request, context):
        answers = ask.Answers(request.interaction)
        if "asked" in answers:
            return reply_text("thank you")
        if answers.can_fill_forms:
            return question(asked=named("What is your name?"))
        if answers.can_sample:
            return question(asked=write("What is the capital of France?"))
        return question(asked=ask.roots())


class Others:
    """Resources, prompts and completion."""

    async def StaticText(self, request, context):
        return contents("This is the content of the static text resource.")

    async def StaticBinary(self, request, context):
        return pb.Contents(contents=mcp.ResourceContents(blob=PNG))

    async def WatchedResource(self, request, context):
        return contents("This resource can be watched.")

    async def Watch(self, request, context):
        while True:
            yield pb.Changed()
            await asyncio.sleep(2 * PAUSE_SECONDS)

    async def TemplateData(self, request, context):
        data = {"id": request.id, "templateTest": True, "data": f"Data for ID: {request.id}"}
        return contents(json.dumps(data))

    async def SimplePrompt(self, request, context):
        return prompt(text("This is a simple prompt for testing."))

    async def PromptWithArguments(self, request, context):
        values = f"arg1='{request.arg1}', arg2='{request.arg2}'"
        return prompt(text(f"Prompt with arguments: {values}"))

    async def PromptWithEmbeddedResource(self, request, context):
        embedded = "Embedded resource content for testing."
        block = resource(request.resourceUri, "text/plain", embedded)
        return prompt(block, text("Please process the embedded resource above."))

    async def PromptWithImage(self, request, context):
        return prompt(image(), text("Please analyze the image above."))

    async def InputRequiredResultPrompt(self, request, context):
        answer = ask.Answers(request.interaction).form("user_context")
        if answer is None or not answer.accepted:
            form = named("What context should the prompt use?", "context")
            return pb.Prompt(input_required=ask.required(user_context=form))
        return prompt(text(f"In the context of {json.dumps(answer.values)}"))

    async def Complete(self, request, context):
        known = ("testValue1", "testValue2", "other")
        values = [value for value in known if value.startswith(request.argument.value)]
        return pb.Completed(completion=mcp.Completion(values=values, total=len(values)))


class Conformance(Tools, Questions, Others, rpc.ConformanceServiceServicer):
    """All of it."""

    def __init__(self, fixed):
        self.fixed = fixed
        self.restart = asyncio.Event()


async def main(settings, fixed):
    """Serves until SIGTERM, and again at the same addresses after each change of the contract."""
    service, stopping = Conformance(fixed), asyncio.Event()
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, stopping.set)
    while not stopping.is_set():
        service.restart.clear()
        async with drawbridge.serving(service, settings=settings) as running:
            addresses = {"listen": running.address, "admin_listen": running.admin_address}
            settings = dataclasses.replace(settings, **addresses)
            serving = {"address": running.address, "admin": running.admin_address}
            print(json.dumps({"message": "serving", **serving}), file=sys.stderr, flush=True)
            ends = [asyncio.create_task(end.wait()) for end in (stopping, service.restart)]
            await asyncio.wait(ends, return_when=asyncio.FIRST_COMPLETED)
            for end in ends:
                end.cancel()


parser = argparse.ArgumentParser()
for option in ("listen", "admin-listen", "auth-jwks-url"):
    parser.add_argument(f"--{option}", required=True)
# `serving` does not delay its end.
parser.add_argument("--drain-delay-ms", type=int, default=0)
parser.add_argument("--fixed-contract", action="store_true")
given = vars(parser.parse_args())
fixed_contract = given.pop("fixed_contract")
asyncio.run(main(drawbridge.Settings(**given), fixed_contract))
