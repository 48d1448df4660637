"""Tables and pictures of what was measured.

Read ``report`` (JSON and tables), then ``pictures`` and its siblings.
"""
