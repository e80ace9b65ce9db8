-- What wrk sends: the same request for a streamed chat completion each time.
wrk.method = "POST"
wrk.path = "/v1/chat/completions"
wrk.headers["content-type"] = "application/json"
wrk.body = '{"model":"null","stream":true,"messages":[{"role":"user","content":"Describe it."}],"max_tokens":64}'
