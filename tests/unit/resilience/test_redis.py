"""rerankd.resilience.redis: an address is never shown with a part of its password."""

from __future__ import annotations

import pytest

from rerankd.errors import ConfigurationError
from rerankd.resilience.redis import check_connection, connect, without_secret

pytestmark = pytest.mark.promise("P5")

SECRETS = [
    "pa/ss",
    "pa#ss",
    "pa?ss",
    "pa@ss",
    "pass/",
    "/pass",
    "#pass",
    "pa:ss/x",
    "p%zzss",
    "pass word",
    "päss[",
    "]pass",
]
FORMS = [
    "redis://:{}@127.0.0.1:1/0",
    "rediss://user:{}@127.0.0.1:1",
    "redis://:{}@",
    "redis://127.0.0.1:1/0?password={}",
]


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("secret", SECRETS)
async def test_no_letter_of_a_password_is_shown(form: str, secret: str) -> None:
    url = form.format(secret)
    shown = without_secret(url)
    assert "ss" not in shown.removeprefix("rediss")
    with pytest.raises(ConfigurationError) as refused:
        await check_connection(url)
    message = refused.value.message.replace("rediss://", "").replace("address", "").replace("password", "")
    assert "ss" not in message, message


@pytest.mark.parametrize("secret", ["pa/ss", "pa#ss", "pa?ss", "pa@ss"])
def test_a_password_that_has_to_be_escaped_says_how(secret: str) -> None:
    with pytest.raises(ConfigurationError, match="%2F %23 %3F %40"):
        connect(f"redis://:{secret}@127.0.0.1:1", timeout=1.0)


@pytest.mark.parametrize(
    ("url", "shown"),
    [
        ("redis://127.0.0.1:6379/0", "redis://127.0.0.1:6379/0"),
        ("redis://:secret@redis.local:6379/2", "redis://redis.local:6379/2"),
        ("rediss://u:s@[::1]:6379", "rediss://[::1]:6379"),
        ("unix:///run/redis.sock?db=1", "unix:///run/redis.sock"),
        ("redis://user:secret", "redis://…"),
        ("secret", "…://"),
    ],
)
def test_host_port_and_database_are_shown(url: str, shown: str) -> None:
    assert without_secret(url) == shown
