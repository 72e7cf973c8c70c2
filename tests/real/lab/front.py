"""nginx in front of it all: one host and one certificate for the registry, its Notary, its tokens and its API, as in a DTR."""

from __future__ import annotations

import os
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from dtr_audit_simulator.http.authority import Certificate
from tests.real.lab.parts import NGINX, executable_path
from tests.real.lab.services import Service

# Each path below is relative to nginx's prefix, a directory of its own: no root, nothing of the machine's own nginx.
_CONFIGURATION = """\
daemon off;
master_process off;
pid nginx.pid;
events {{ worker_connections 256; }}
http {{
  access_log access.log;
  client_body_temp_path body;
  proxy_temp_path proxy;
  fastcgi_temp_path fastcgi;
  uwsgi_temp_path uwsgi;
  scgi_temp_path scgi;
  client_max_body_size 0;

  proxy_http_version 1.1;
  proxy_set_header Host $http_host;
  proxy_set_header X-Forwarded-Proto https;

  upstream api {{ server {api}; }}
  upstream registry {{ server {registry}; }}
  upstream notary {{ server {notary}; }}
  upstream tokens {{ server {tokens}; }}

  server {{
    listen 127.0.0.1:{port} ssl reuseport;
    server_name localhost;
    ssl_certificate certificate.pem;
    ssl_certificate_key key.pem;

    # The API knows who is logged in: its settings are for admins, and its /v2/ asks others to log in.
    location = /logged-in {{
      internal;
      proxy_method GET;
      proxy_pass_request_body off;
      proxy_set_header Content-Length "";
      proxy_pass http://api/api/v0/meta/settings;
    }}
    location = /challenge {{
      internal;
      proxy_method GET;
      proxy_pass_request_body off;
      proxy_set_header Content-Length "";
      proxy_set_header Authorization "";
      proxy_pass http://api/v2/;
    }}
    location = /v2/ {{ proxy_pass http://api; }}
    location = /auth/token {{ proxy_pass http://tokens; }}
    # The Notary asks for a token itself.
    location ~ ^/v2/(.+/)?_trust/ {{ proxy_pass http://notary; }}
    location /v2/ {{
      auth_request /logged-in;
      error_page 401 = /challenge;
      proxy_pass http://registry;
    }}
    location / {{ proxy_pass http://api; }}
  }}
}}
"""


@contextmanager
def reserve_port() -> Iterator[int]:
    """Reserve a port of 127.0.0.1 that the kernel chooses, for a server that must be told its port.

    The port is bound but not listened on: only a process of this user that sets SO_REUSEPORT too, as nginx does for
    `reuseport`, can get it, and it gets every connection.
    """
    with socket.socket() as reserved:
        reserved.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        reserved.bind(("127.0.0.1", 0))
        yield reserved.getsockname()[1]


def start_front(
    directory: Path, port: int, certificate: Certificate, *, api: int, registry: int, notary: int, tokens: int
) -> Service:
    """Start nginx on a reserved port; the others are ports on 127.0.0.1 too."""
    directory.mkdir()
    (directory / "nginx.conf").write_text(
        _CONFIGURATION.format(
            port=port,
            api=f"127.0.0.1:{api}",
            registry=f"127.0.0.1:{registry}",
            notary=f"127.0.0.1:{notary}",
            tokens=f"127.0.0.1:{tokens}",
        ),
        encoding="ascii",
    )
    (directory / "certificate.pem").write_text(certificate.certificate_pem, encoding="ascii")
    key = os.open(directory / "key.pem", os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    with os.fdopen(key, "w", encoding="ascii") as file:
        file.write(certificate.key_pem)
    command = [executable_path(NGINX), "-p", str(directory), "-e", "stderr", "-c", "nginx.conf"]
    return Service("nginx", command, directory)
