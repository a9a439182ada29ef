"""Captured bytes to events: no network, no key, no event loop."""

import loomstream as ls

CAPTURE = (
    b'event: message_start\ndata: {"type":"message_start","message":{"id":"m1","model":"demo","usage":{"input_tokens":9}}}'
    b'\n\nevent: content_block_start\ndata: {"type":"content_block_start","index":0,"content_block":{"type":"text","text":""}}'
    b'\n\nevent: content_block_delta\ndata: {"type":"content_block_delta","index":0,"delta":{"type":"text_delta","text":"Hi"}}'
    b'\n\nevent: content_block_stop\ndata: {"type":"content_block_stop","index":0}'
    b'\n\nevent: message_delta\ndata: {"type":"message_delta","delta":{"stop_reason":"end_turn"},"usage":{"output_tokens":2}}'
    b'\n\nevent: message_stop\ndata: {"type":"message_stop"}\n\n'
)

for event in ls.decode("anthropic", CAPTURE):
    print(event)
