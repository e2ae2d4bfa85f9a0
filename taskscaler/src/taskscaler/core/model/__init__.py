"""The state of the core: plain values, and objects that own their fields.

Plain values are `events`, `effects`, `records`, `decisions`, `settings` and `demand`;
functions of these are `policy` and `explain`. `fleet` holds everything that a rule may
need: `tasks`, and each `group` with its parts `members`, `listing`, `creations` (with
`operations` and `throttle`), `checks`, `requests` and `indexes`. `instance` and
`lifecycle` are about one instance, and `agenda` collects the reasons to decide again.
"""
