"""Amazon Bedrock's InvokeModel and InvokeModelWithResponseStream with Anthropic Messages bodies.

Requests are Messages bodies with `anthropic_version` and without `model` and `stream`; a stream's frames are named
`chunk` and hold a Messages event in base64. So this dialect wraps that one (docs/decisions/0011). Answers of the older
families that send plain completions are read too; their requests are not written: Converse serves every family.

Source: https://docs.aws.amazon.com/bedrock/latest/userguide/model-parameters-anthropic-claude-messages.html, botocore's
model of `bedrock-runtime`, and what recorded models really send.
"""

from loomstream.dialects.aws_errors import parse_error
from loomstream.dialects.bedrock_invoke.request import build_request
from loomstream.dialects.bedrock_invoke.translate import parse_response, translator

__all__ = ("build_request", "parse_error", "parse_response", "translator")
