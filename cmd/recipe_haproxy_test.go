package cmd_test

var haproxyRecipe = recipe{
	name:    "haproxy",
	version: `haproxy -v | sed -n 's,^HAProxy version \([0-9.]*\).*,\1,p'`,
	root:    files{"haproxy.cfg": haproxyConf("certs/", ""), "certs/site.pem": "{cert}{key}", "certs/site.key": ""},
	spoiled: map[string]files{
		validateFails: {"certs/site.pem": "{cert}{otherkey}"},
		// haproxy -c does not listen.
		reloadFails: {"haproxy.cfg": haproxyConf("certs/", "bind {busy}")},
		wrong:       {"haproxy.cfg": haproxyConf("other/", ""), "other/site.pem": "{othercert}{otherkey}"},
	},
	refused: "inconsistencies between private key and certificate",
	reload: `if alive; then
	kill -USR2 "$(cat run/pid)"
else
	haproxy -W -D -f {current}/haproxy.cfg -p run/pid >>run/start.log 2>&1
fi
`,
}

// haproxyConf returns settings with the certificates of a directory, and something
// more.
func haproxyConf(certs, more string) string {
	return `global
	default-path config
defaults
	mode http
	timeout connect 10s
	timeout client 30s
	timeout server 30s
frontend site
	bind {addr} ssl crt ` + certs + `
	` + more + `
	default_backend behind
backend behind
	server one {behind}
`
}
