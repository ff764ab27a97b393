from adsum.integrations.wsgi import gunicorn_hooks

when_ready, on_exit = gunicorn_hooks("orders", check="http:/health?interval=1s")
