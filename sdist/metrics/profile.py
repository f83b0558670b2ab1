"""Two ways to measure: `official` gives what the benchmarks' published code gives, `clean` what their papers describe."""

from typing import Literal, get_args

from ..errors import unknown

Profile = Literal["official", "clean"]


def check_profile(name: str) -> Profile:
    """The name as a profile. Raises UserError for any other."""
    profiles: tuple[Profile, ...] = get_args(Profile)
    for profile in profiles:
        if name == profile:
            return profile
    raise unknown("profile", name, profiles)
