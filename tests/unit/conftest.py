"""Properties are tried on the same examples in every run, however slow the machine: what fails was changed, not unlucky.

To look further: pytest tests/unit --hypothesis-profile=search
"""

from hypothesis import HealthCheck, settings

SLOW = (HealthCheck.too_slow,)  # that is a machine's fault, not a test's
settings.register_profile("same", derandomize=True, deadline=None, database=None, suppress_health_check=SLOW)
settings.register_profile("search", deadline=None, suppress_health_check=SLOW)
settings.load_profile("same")
