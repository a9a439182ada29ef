"""The page that `looms ui` serves: a chat with any configured provider, in a browser.

`guard` lets nobody in but the page's own user, `chat` keeps the conversations and their answers, `choices` says which
models there are, `app` joins them to an ASGI application, `static` is the page itself: hand-written, without a build
step, and without content from other hosts.
"""

from __future__ import annotations
