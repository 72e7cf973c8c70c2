"""What one would write first in Python: a session, one request after another, pages of a hundred, a line for each tag."""

import os
from collections.abc import Iterator
from typing import Any

import requests

HOST = os.environ["DTR_HOST"]


def read_pages(session: requests.Session, path: str, **asked: str) -> Iterator[Any]:
    """Yield the pages of a list."""
    following = ""
    while True:
        query = {**asked, "pageSize": "100", "pageStart": following}
        answer = session.get(f"https://{HOST}{path}", params=query, timeout=60)
        answer.raise_for_status()
        yield answer.json()
        following = answer.headers.get("X-Next-Page-Start", "")
        if not following:
            return


def main() -> None:
    """Print each tag, and whether it is in the Notary."""
    with requests.Session() as session:
        session.verify = os.environ["CA_FILE"]
        session.auth = (os.environ["DTR_USERNAME"], os.environ["DTR_PASSWORD"])
        token = session.get(f"https://{HOST}/auth/token", timeout=60).json()["token"]
        session.auth = None
        session.headers["Authorization"] = f"Bearer {token}"
        for page in read_pages(session, "/api/v0/repositories"):
            for one in page["repositories"]:
                path = f"/api/v0/repositories/{one['namespace']}/{one['name']}/tags"
                for tags in read_pages(session, path, domain=HOST):
                    for tag in tags:
                        print(f'"{tag["name"]}",{str(tag["inNotary"]).lower()}')


if __name__ == "__main__":
    main()
