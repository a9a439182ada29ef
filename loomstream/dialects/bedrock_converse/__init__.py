"""Amazon Bedrock's Converse and ConverseStream: requests, streams, whole answers and errors, for every model family.

Terminal marker: `messageStop`; `metadata` with the usage follows it, so `Stop` comes after that or at the end of the
body. Frames are told apart by their name, which is the AWS message's `:event-type`. Must know no provider: what differs
between model families is in `Quirks`.

Source: https://docs.aws.amazon.com/bedrock/latest/APIReference/API_runtime_ConverseStream.html, botocore's model of
`bedrock-runtime`, and what recorded models really send.
"""

from loomstream.dialects.aws_errors import parse_error
from loomstream.dialects.bedrock_converse.request import build_request
from loomstream.dialects.bedrock_converse.translate import parse_response, translator

__all__ = ("build_request", "parse_error", "parse_response", "translator")
