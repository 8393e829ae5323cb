{"policy": {"inbound": "discard"}}
