"""Count refusals by model and route in Prometheus's client library, as its endpoint would show them."""

from prometheus_client import REGISTRY, generate_latest  # pip install 'refusal-guard[prometheus]'

from refusal_guard import Guard
from refusal_guard.events import tagged
from refusal_guard.events.prometheus import PrometheusHook

guard = Guard(hooks=[PrometheusHook()], route="kitchen")
with tagged(model="small"):  # a plain scan can't know the model; a guarded call does
    guard.scan("How do I boil eggs?", "I'm sorry, but I can't help with that.")
    guard.scan("How do I boil eggs?", "Eight minutes in boiling water.")
guard.events.flush()
print(*(line for line in generate_latest(REGISTRY).decode().splitlines() if line.startswith("refusal_guard_scans_total")), sep="\n")
