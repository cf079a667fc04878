package cmd_test

import (
	"crypto/tls"
	"encoding/pem"
	"fmt"
	"maps"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"deploytools/registry/wire"
)

// A place is where a recipe is tried: a host with an agent, a registry, and an
// address for the server, whose process id is in run/pid, or ids.
type place struct {
	*recipe
	s        *site
	dir      string
	addr     string // of the server
	behind   string // of an HTTP server, for servers that pass requests on; also a port that is taken
	versions map[string]*tried
	live     string // version that serves, as it should be
}

// tried is a version of the recipe's root.
type tried struct {
	name      string
	cert, key string // in PEM
	text      string // of html/index.html
}

// newPlace returns a place where nothing is deployed yet. In the end its server
// is ended.
func newPlace(t *testing.T, r *recipe) *place {
	t.Helper()
	p := &place{recipe: r, s: startSite(t), dir: t.TempDir(), versions: map[string]*tried{}}
	var err error
	if p.addr, err = freeAddr(); err != nil {
		t.Fatal(err)
	}
	p.behind = listenBehind(t)
	// Servers read what is in roots as a user of their own.
	if err := os.Chmod(filepath.Dir(p.dir), 0o711); err != nil {
		t.Fatal(err)
	}
	if err := os.Mkdir(p.file("run"), 0o755); err != nil {
		t.Fatal(err)
	}
	if p.prepare != nil {
		p.prepare(t, p)
	}
	p.writeScripts(t)
	t.Cleanup(func() {
		if t.Failed() {
			t.Logf("what the hooks did:\n%s\n%s", p.text("calls"), p.logs())
		}
		p.kill(t)
	})
	return p
}

// serveSizes answers as if it had the files of html, as long as they are.
func serveSizes(w http.ResponseWriter, r *http.Request) {
	size := 10
	if r.URL.Path == "/index.html" {
		size = textSize
	}
	w.Header().Set("Content-Length", strconv.Itoa(size))
	w.Write(make([]byte, size))
}

// listenBehind starts an HTTP server that has what a root has in html, and returns
// its address.
func listenBehind(t *testing.T) string {
	t.Helper()
	l, err := net.Listen("tcp", net.JoinHostPort(freeHost(), "0"))
	if err != nil {
		t.Fatal(err)
	}
	s := &http.Server{Handler: http.HandlerFunc(serveSizes)}
	go s.Serve(l) // until it is closed
	t.Cleanup(func() { s.Close() })
	return l.Addr().String()
}

func (p *place) file(name string) string { return filepath.Join(p.dir, name) }

// text returns what a file of the place holds; nothing where there is none.
func (p *place) text(name string) string {
	b, _ := os.ReadFile(p.file(name))
	return string(b)
}

// logs returns the ends of the logs in run/.
func (p *place) logs() string {
	var b strings.Builder
	logs, _ := filepath.Glob(p.file("run/*.log")) // no error: the pattern is sound
	for _, log := range logs {
		text, _ := os.ReadFile(log)
		fmt.Fprintf(&b, "--- %s\n%s", filepath.Base(log), text[max(0, len(text)-4000):])
	}
	return b.String()
}

// fill returns a template with its places filled: {dir}, {addr}, {host}, {port}
// and {current} of the place, {behind}, an HTTP server, and {busy}, an address that
// is taken; {name}, {cert}, {key} and {text} of the version, if there is one, and
// {othercert} and {otherkey} of another one.
func (p *place) fill(template string, v *tried) string {
	host, port, _ := net.SplitHostPort(p.addr)
	pairs := []string{"{dir}", p.dir, "{addr}", p.addr, "{host}", host, "{port}", port, "{current}", p.file("agent/current"),
		"{behind}", p.behind, "{busy}", p.behind}
	if v != nil {
		pairs = append(pairs, "{name}", v.name, "{cert}", v.cert, "{key}", v.key, "{text}", v.text)
	}
	if other := p.versions["other"]; other != nil {
		pairs = append(pairs, "{othercert}", other.cert, "{otherkey}", other.key)
	}
	return strings.NewReplacer(pairs...).Replace(template)
}

// writeScripts makes the hook, which is what an operator would write: it sets
// the recipe's variables and executes its script. In place of systemd is reload.
// A trial makes it fail, or slow, by a file of the host or of the version.
func (p *place) writeScripts(t *testing.T) {
	t.Helper()
	script, err := filepath.Abs(p.hook())
	if err != nil {
		t.Fatal(err)
	}
	vars := append([]string{"RELOAD={dir}/reload", "STOP=kill $(cat {dir}/run/pid)", "PIDFILE={dir}/run/pid", "WAIT=5"}, p.vars...)
	hook := "#!/bin/sh\ncd {dir}\n"
	for _, v := range vars {
		name, value, _ := strings.Cut(v, "=")
		hook += fmt.Sprintf("export %s='%s'\n", name, value)
	}
	hook += "echo \"$DEPLOY_PHASE $DEPLOY_ACTION $(cat \"$NEWROOT/version\")\" >>calls\nexec " + script + "\n"
	reload := `#!/bin/sh
set -eu
cd {dir}
if [ -e refuse ] || [ -e "$NEWROOT/refuse" ]; then
	echo 'error: the reload is refused'
	exit 1
fi
if [ -e "$NEWROOT/slow" ] && [ "${1-}" != late ]; then
	{ sleep 1.5; exec ./reload late; } >>run/late.log 2>&1 &
	exit
fi
# alive: whether the server runs.
alive() { [ -s run/pid ] && [ -e "/proc/$(cat run/pid)/exe" ]; }
` + p.reload
	scripts := files{"hook": hook, "reload": reload}
	for name, text := range scripts {
		if err := os.WriteFile(p.file(name), []byte(p.fill(text, nil)), 0o755); err != nil {
			t.Fatal(err)
		}
	}
}

// publish makes a version with what is otherwise in it.
func (p *place) publish(t *testing.T, name string, otherwise files) {
	t.Helper()
	v := p.newVersion(t, name)
	all := files{"certs/site.pem": "{cert}", "certs/site.key": "{key}", "html/index.html": "{text}", "html/small.html": "{name}\n", "version": "{name}"}
	maps.Copy(all, p.root)
	maps.Copy(all, otherwise)
	dir := p.file("versions/" + name)
	for file, text := range all {
		if text == "" {
			continue
		}
		mode := os.FileMode(0o644)
		if strings.HasPrefix(file, "certs/") {
			mode = 0o600
		}
		if strings.HasPrefix(text, "#!") {
			mode = 0o755
		}
		path := filepath.Join(dir, file)
		if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, []byte(p.fill(text, v)), mode); err != nil {
			t.Fatal(err)
		}
	}
	p.s.deployctl(t, "pack", "-o", dir+".tar.gz", dir)
	p.s.deployctl(t, "addver", "-name", p.name, "-version", name, "-file", dir+".tar.gz")
}

// newVersion returns a version with a certificate and a text of its own.
func (p *place) newVersion(t *testing.T, name string) *tried {
	t.Helper()
	cert, key, err := newCertificate()
	if err != nil {
		t.Fatal(err)
	}
	v := &tried{name: name, cert: string(cert), key: string(key)}
	v.text = name + "\n" + strings.Repeat(strings.Repeat("0123456789abcdef", 4)[:63]+"\n", textSize/64)
	p.versions[name] = v
	return v
}

// deploy makes a version the one that is wanted, and runs the agent.
func (p *place) deploy(t *testing.T, version string, flags ...string) (wire.Status, string) {
	t.Helper()
	if p.live == "" {
		p.s.deployctl(t, "addconf", "-name", p.name, "-layer", p.name+":"+version)
	} else {
		p.s.deployctl(t, "changeconf", "-name", p.name, "-component", p.name, "-version", version)
	}
	return p.agent(t, flags...)
}

// agent runs the agent until nothing is left to do.
func (p *place) agent(t *testing.T, flags ...string) (wire.Status, string) {
	t.Helper()
	checks := p.checks
	if checks == nil {
		checks = []string{"type=tls,addr={addr},sni=site.test,cert=certs/site.pem"}
	}
	hook := p.file("hook")
	cmd := exec.Command("deploy-agent", "-name", p.name, "-once", "-script", hook, "-check-script", hook, "-remove-script", hook,
		"-verify-total", "20s", "-v")
	for _, check := range checks {
		cmd.Args = append(cmd.Args, "-verify", p.fill(check, nil))
	}
	for _, flag := range p.flags {
		cmd.Args = append(cmd.Args, p.fill(flag, nil))
	}
	cmd.Args = append(cmd.Args, flags...)
	cmd.Dir = p.dir
	cmd.Env = append(p.s.env(), "TMPDIR="+p.dir, "DEPLOY_AGENT_DIR="+p.file("agent"), "DEPLOY_AGENT_STATE=")
	log, err := cmd.CombinedOutput()
	return status(err), string(log)
}

// serves returns the version that the server serves.
func (p *place) serves() (string, error) {
	served := p.served
	if served == nil {
		served = servedCertificate
	}
	got, err := served(p)
	if err != nil {
		return "", err
	}
	for name, v := range p.versions {
		if got == v.cert || got == v.text {
			return name, nil
		}
	}
	return "", fmt.Errorf("what is served is of no version: %.100q", got)
}

// servedCertificate returns the certificate that is served over TLS, in PEM.
func servedCertificate(p *place) (string, error) {
	d := &tls.Dialer{NetDialer: &net.Dialer{Timeout: 10 * time.Second}, Config: &tls.Config{ServerName: "site.test", InsecureSkipVerify: true}}
	conn, err := d.Dial("tcp", p.addr)
	if err != nil {
		return "", err
	}
	defer conn.Close()
	leaf := conn.(*tls.Conn).ConnectionState().PeerCertificates[0]
	return string(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: leaf.Raw})), nil
}

// kill ends the server and its children at once, as a crash of it would.
func (p *place) kill(t *testing.T) {
	t.Helper()
	var pids []int
	for main := range strings.FieldsSeq(p.text("run/pid")) { // none: it was never started
		for process := range strings.FieldsSeq(main + " " + readText("/proc/"+main+"/task/"+main+"/children")) {
			if pid, err := strconv.Atoi(process); err == nil && pid > 1 {
				pids = append(pids, pid)
			}
		}
	}
	for _, pid := range pids {
		syscall.Kill(pid, syscall.SIGKILL)
	}
	err := poll(func() (bool, error) {
		for _, pid := range pids {
			if _, err := os.Readlink(fmt.Sprintf("/proc/%d/exe", pid)); err == nil {
				return false, nil
			}
		}
		return true, nil
	})
	if err != nil {
		t.Fatalf("the server of %s does not end: %v", p.name, err)
	}
}

func readText(name string) string {
	b, _ := os.ReadFile(name)
	return string(b)
}

// keepsKeys: no private key is in anything that was logged or recorded.
func (p *place) keepsKeys(t *testing.T) {
	t.Helper()
	read := 0
	for _, dir := range []string{"run", "agent/deployments"} {
		err := filepath.WalkDir(p.file(dir), func(path string, d os.DirEntry, err error) error {
			if err != nil || !d.Type().IsRegular() {
				return err
			}
			read++
			text := readText(path)
			for _, v := range p.versions {
				if strings.Contains(text, strings.Split(v.key, "\n")[1]) {
					t.Errorf("%s has the private key of %s", path, v.name)
				}
			}
			return nil
		})
		if err != nil {
			t.Error(err)
		}
	}
	if read == 0 {
		t.Error("nothing was logged or recorded")
	}
}
