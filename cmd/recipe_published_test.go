package cmd_test

import (
	"os"
	"strings"
	"testing"
)

// publishedRecipe has certificates at fixed paths, and the host's own settings.
var publishedRecipe = recipe{
	name:    "nginx-published",
	script:  "nginx",
	version: nginxRecipe.version,
	prepare: func(t *testing.T, p *place) {
		conf := strings.ReplaceAll(nginxConf("certs/site", ""), "root html", "root {current}/html")
		do(t, "mkdir", "-p", p.file("etc/certs"))
		if err := os.WriteFile(p.file("etc/nginx.conf"), []byte(p.fill(conf, nil)), 0o644); err != nil {
			t.Fatal(err)
		}
	},
	flags: []string{"-publish", "certs/site.pem={dir}/etc/certs/site.pem,mode=0644", "-publish", "certs/site.key={dir}/etc/certs/site.key,mode=0600"},
	edits: "etc",
	vars:  []string{"CONF={dir}/etc/nginx.conf"},
	spoiled: map[string]files{
		validateFails: {"certs/site.key": "{otherkey}"},
		// What is published is one pair, and what the check asks for is another.
		wrong: {"certs/site.pem": "{othercert}", "certs/site.key": "{otherkey}", "certs/wanted.pem": "{cert}"},
	},
	root:    files{"certs/wanted.pem": "{cert}"},
	checks:  []string{"type=tls,addr={addr},sni=site.test,cert=certs/wanted.pem"},
	refused: "key values mismatch",
	reload: `if alive; then
	nginx -c {dir}/etc/nginx.conf -s reload
else
	nginx -c {dir}/etc/nginx.conf >>run/start.log 2>&1
fi
`,
}
