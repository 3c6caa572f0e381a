"""gunicorn behind Portcullis: one unix socket, eight threads. Read by `gunicorn` without arguments."""

wsgi_app = "project.wsgi"

# Nobody reaches the app past the gateway: no port, only a socket for this user and group (umask).
bind = "unix:gunicorn.sock"
umask = 0o007
pidfile = "gunicorn.pid"
control_socket_disable = True

# Two processes of four threads. So few are enough, because the gateway's `buffer` keeps slow clients away.
worker_class = "gthread"
workers = 2
threads = 4

# Longer than the gateway keeps an idle connection (`timeouts.idle` of the upstream), so that the app never closes
# one under a request.
keepalive = 75

# `kill -HUP` starts new workers and lets the old ones finish; so long may a last answer take.
graceful_timeout = 30
