"""The HTTP face. The only home of fastapi; `create_app` lists what it is made of."""
