"""Captured bytes to events: no network, no key, no event loop."""

import json

import loomstream as ls

FRAMES = [
    {"type": "message_start", "message": {"id": "m1", "model": "demo", "usage": {"input_tokens": 9}}},
    {"type": "content_block_start", "index": 0, "content_block": {"type": "text", "text": ""}},
    {"type": "content_block_delta", "index": 0, "delta": {"type": "text_delta", "text": "Hi"}},
    {"type": "content_block_stop", "index": 0},
    {"type": "message_delta", "delta": {"stop_reason": "end_turn"}, "usage": {"output_tokens": 2}},
    {"type": "message_stop"},
]
CAPTURE = "".join(f"event: {frame['type']}\ndata: {json.dumps(frame)}\n\n" for frame in FRAMES).encode()

for event in ls.decode("anthropic", CAPTURE):
    print(event)
