"""Telemetry: what calls did, told to somebody else: OpenTelemetry, Hawk, an audit log.

Contract: each is a middleware that looks at a stream and changes nothing of it, but for one `warning` notice where it
fails. Nothing of a prompt or an answer leaves unless that was asked for.
"""
