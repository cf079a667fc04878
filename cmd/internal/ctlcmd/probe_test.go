package ctlcmd

import (
	"crypto/sha256"
	"encoding/json"
	"encoding/pem"
	"fmt"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"deploytools/registry/wire"
	"deploytools/verify"
)

// site is a server over TLS, and the file with its certificate.
func site(t *testing.T) (addr, cert string) {
	t.Helper()
	server := httptest.NewTLSServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		w.Write([]byte(`{"host":"` + r.Host + `"}`))
	}))
	t.Cleanup(server.Close)
	cert = filepath.Join(t.TempDir(), "site.pem")
	b := pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: server.Certificate().Raw})
	if err := os.WriteFile(cert, b, 0o600); err != nil {
		t.Fatal(err)
	}
	return server.Listener.Addr().String(), cert
}

// fingerprint returns what openssl prints of the certificate in a file.
func fingerprint(t *testing.T, file string) string {
	t.Helper()
	text, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	block, _ := pem.Decode(text)
	return strings.ReplaceAll(fmt.Sprintf("% X", sha256.Sum256(block.Bytes)), " ", ":")
}

func TestProbe(t *testing.T) {
	addr, cert := site(t)
	_, other := site(t)
	if err := os.WriteFile(other, []byte("no certificate"), 0o600); err != nil {
		t.Fatal(err)
	}
	port := addr[strings.LastIndexByte(addr, ':'):]
	usual := strings.NewReplacer("www.example.org:443", addr, "DIGEST", fingerprint(t, cert)).Replace(strings.Fields(usualHint)[6])
	usual = strings.TrimRight(usual, "',")
	tls := "type=tls,addr=" + addr + ",cert=" + filepath.Base(cert)
	for _, test := range []struct {
		name   string
		args   []string
		status wire.Status
		want   []string // of stdout, or else stderr
	}{
		{"right certificate", []string{tls, "-cert", cert}, wire.OK, []string{"ok    tls-1 (tls " + addr + ")", "certificate until 2"}},
		{"of a directory", []string{tls, "-root", filepath.Dir(cert)}, wire.OK, []string{"ok    tls-1"}},
		{"another name of the file", []string{"type=tls,addr=" + addr + ",cert=etc/x.pem", "-cert", cert}, wire.OK, []string{"ok"}},
		{"no certificate to compare with", []string{tls}, wire.Failed, []string{"FAIL  tls-1", "next:  say where the certificate is, with -cert FILE"}},
		{"a file that holds none", []string{tls, "-cert", other}, wire.Failed, []string{"FAIL", "no CERTIFICATE block"}},
		{"nothing listens", []string{"type=tcp,addr=127.0.0.1:1", tls, "-cert", cert}, wire.Failed,
			[]string{"FAIL  tcp-1 (tcp 127.0.0.1:1): dial: ", "means: " + verify.Dial.Explain().Means, "next:  see whether the program runs", "ok    tls-2"}},
		{"until the time is over", []string{"type=tcp,addr=127.0.0.1:1", "-verify-total", "10ms"}, wire.Failed, []string{"dial"}},
		{"elsewhere", []string{"type=http,insecure=true,json=/host,equals=127.0.0.3" + port + ",url=https://127.0.0.3" + port + "/", "-to", "127.0.0.1"}, wire.OK, []string{"ok"}},
		{"nothing", nil, wire.Usage, []string{"nothing to look at", "hint: " + usualHint}},
		{"nothing to compare with", []string{"type=tls,addr=" + addr}, wire.Usage, []string{"want one of cert, fingerprint", "hint: " + usualHint}},
		{"as the hint says", []string{usual}, wire.OK, []string{"ok    tls-1"}},
		{"another type", []string{"type=tcp"}, wire.Usage, []string{"addr", "hint: run 'deployctl probe -h'"}},
		{"nonsense", []string{"type=tls"}, wire.Usage, []string{"addr"}},
		{"a port too much", []string{"type=tcp,addr=localhost:1", "-to", "web1:22"}, wire.Usage, []string{"-to \"web1:22\""}},
		{"two places", []string{tls, "-cert", cert, "-root", "."}, wire.Usage, []string{"exclude"}},
		{"no time", []string{tls, "-successes", "3"}, wire.Usage, []string{"-verify-total"}},
		{"no such file", []string{tls, "-cert", cert + "x"}, wire.Failed, []string{"no such file"}},
	} {
		t.Run(test.name, func(t *testing.T) {
			status, stdout, stderr := call{}.run(t, append([]string{"probe"}, test.args...)...)
			if wire.Status(status) != test.status {
				t.Errorf("status %d, want %d\n%s%s", status, test.status, stdout, stderr)
			}
			for _, want := range test.want {
				if !strings.Contains(stdout+stderr, want) {
					t.Errorf("want %q in\n%s%s", want, stdout, stderr)
				}
			}
		})
	}
}

func TestProbeInJSON(t *testing.T) {
	addr, cert := site(t)
	status, stdout, stderr := call{}.run(t, "probe", "-json", "type=tcp,addr=127.0.0.1:1,name=mail", "type=tls,addr="+addr+",cert=x", "-cert", cert)
	var out probed
	if err := json.Unmarshal([]byte(strings.Replace(stdout, `"schema":1,`, "", 1)), &out); err != nil || status != int(wire.Failed) {
		t.Fatalf("status %d, %v\n%s%s", status, err, stdout, stderr)
	}
	if out.OK || len(out.Findings) != 2 {
		t.Fatalf("got %+v", out)
	}
	mail, site := out.Findings[0], out.Findings[1]
	if mail.Check != "mail" || mail.OK || mail.Kind != verify.Dial || mail.Means == "" || mail.Do == "" || !mail.Expires.IsZero() {
		t.Errorf("what failed: %+v", mail)
	}
	if !site.OK || site.Kind != "" || site.Means != "" || site.Expires.IsZero() || site.Want != site.Got {
		t.Errorf("what passed: %+v", site)
	}
}
