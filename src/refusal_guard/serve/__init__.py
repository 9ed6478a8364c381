"""The HTTP service: verdicts over /v1/scan, and the routes of LLM Guard's API and of LiteLLM's generic guardrails."""
