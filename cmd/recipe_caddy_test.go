package cmd_test

var caddyRecipe = recipe{
	name:    "caddy",
	version: `caddy version | sed 's,^v,,; s, .*,,'`,
	root:    files{"Caddyfile": caddyfile("site", "")},
	spoiled: map[string]files{
		validateFails: {"certs/site.key": "{otherkey}"},
		reloadFails:   {"Caddyfile": caddyfile("site", "http://{busy} {\n}\n")},
		wrong:         {"Caddyfile": caddyfile("other", ""), "certs/other.pem": "{othercert}", "certs/other.key": "{otherkey}"},
	},
	refused: "private key does not match public key",
	drops:   10, // it closes a listening socket where connections wait
	vars:    []string{"RESTART={dir}/reload restart"},
	reload: `export ROOT={current} HOME={dir}/run
if [ "${1-}" = restart ] && alive; then
	kill "$(cat run/pid)"
	while alive; do sleep 0.1; done
fi
if alive; then
	caddy reload --force --adapter caddyfile --config {current}/Caddyfile
else
	rm -f run/pid
	caddy run --adapter caddyfile --config {current}/Caddyfile --pidfile run/pid >>run/caddy.log 2>&1 &
	while kill -0 $! && ! [ -s run/pid ]; do sleep 0.1; done
fi
`,
}

// caddyfile returns settings with a certificate, and something more.
func caddyfile(cert, more string) string {
	return `{
	admin unix//{dir}/run/admin.sock
	auto_https off
	storage file_system {dir}/run/storage
}
https://site.test:{port} {
	bind {host}
	tls {$ROOT}/certs/` + cert + `.pem {$ROOT}/certs/` + cert + `.key
	root * {$ROOT}/html
	file_server
}
` + more
}
