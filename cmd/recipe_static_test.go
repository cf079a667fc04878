package cmd_test

import (
	"context"
	"crypto/tls"
	"fmt"
	"io"
	"net/http"
	"os"
	"testing"
	"time"
)

var staticRecipe = recipe{
	name:    "static",
	version: `nginx -v 2>&1 | sed 's,.*/,nginx ,'`,
	root:    files{"html/health.json": `{"ok": true}`},
	spoiled: map[string]files{
		validateFails: {"html/index.html": ""},
		wrong:         {"html/health.json": `{"ok": false}`},
	},
	refused: "html/index.html is missing or empty",
	prepare: func(t *testing.T, p *place) {
		hostCertificate(t, p)
		writeFile(t, p, "run/nginx.conf", staticConf)
	},
	// The site's hook asks nobody. That it does, and that nginx is started, is the
	// trials'.
	reload: `alive || nginx -c {dir}/run/nginx.conf
`,
	checks: []string{
		"type=http,url=https://{addr}/deployed,insecure=true,body={newroot}/html",
		"type=http,url=https://{addr}/health.json,insecure=true,json=/ok,equals=true",
	},
	served: servedText,
}

var staticConf = nginxSettings("pid", `	server {
		listen {addr} ssl;
		ssl_certificate {dir}/run/host.pem;
		ssl_certificate_key {dir}/run/host.pem;
		root {current}/html;
		location = /deployed {
			return 200 "$realpath_root\n";
		}
	}
`)

// hostCertificate gives the host a certificate that comes from no root.
func hostCertificate(t *testing.T, p *place) {
	t.Helper()
	cert, key, err := newCertificate()
	if err != nil {
		t.Fatal(err)
	}
	writeFile(t, p, "run/host.pem", string(key)+string(cert))
}

// writeFile writes a file of the place from its template.
func writeFile(t *testing.T, p *place, name, template string) {
	t.Helper()
	if err := os.WriteFile(p.file(name), []byte(p.fill(template, nil)), 0o600); err != nil {
		t.Fatal(err)
	}
}

// servedText returns the text of /index.html.
func servedText(p *place) (string, error) {
	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
	defer cancel()
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, "https://"+p.addr+"/index.html", nil)
	if err != nil {
		return "", err
	}
	rt := &http.Transport{TLSClientConfig: &tls.Config{InsecureSkipVerify: true}, DisableKeepAlives: true}
	resp, err := rt.RoundTrip(req)
	if err != nil {
		return "", err
	}
	defer resp.Body.Close()
	text, err := io.ReadAll(resp.Body)
	if err == nil && resp.StatusCode != http.StatusOK {
		err = fmt.Errorf("status %d", resp.StatusCode)
	}
	return string(text), err
}
