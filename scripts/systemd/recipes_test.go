//go:build systemd

package systemd

import (
	"context"
	"crypto/sha256"
	"crypto/tls"
	"fmt"
	"io"
	"net/http"
	"os"
	"os/exec"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"
)

// A place is a host on which a recipe is set up as its page says, with the
// configuration's name in place of `web`.
type place struct {
	recipe string
	name   string
	addr   string
	unit   string // of the program, or all of them
	url    string
	number int // of the last version

	setUp func(*testing.T, *place) // as the page says
	root  func(t *testing.T, p *place, mode string) map[string]string
	want  func(root string) string // what a root has to serve: see get
	lossy bool                     // requests in a switch may fail
	late  bool                     // it can be slow to start

	version  string   // of its server, with a comma
	verdicts []string // of the trials so far
}

// trials are the columns of the matrix. Each returns its verdict.
var trials = []struct {
	name, about string
	run         func(*testing.T, *place) string
}{
	{"good", "A first version starts the program, and a second one takes over.", good},
	{"nothing new", "The agent looks again: no hook is run.", nothingNew},
	{"validate fails", "The program's own check refuses the version. It is never started.", validateFails},
	{"start fails", "The program passes the check, and ends at its start.", func(t *testing.T, p *place) string { return p.takenBack(t, crashes) }},
	{"wrong content", "All goes well, but what is served is not the root's.", func(t *testing.T, p *place) string { return p.takenBack(t, lies) }},
	{"slow start", "The program takes 3 s to get ready.", slowStart},
	{"not running", "The program was stopped before the deployment.", notRunning},
	{"after a boot", "Systemd starts what is enabled, without the agent; then the agent deploys.", afterBoot},
	{"20 switches", "Requests that failed while two versions took turns, on new connections and on kept ones.", switching},
	{"removed", "`deploy-agent remove`: nothing of it runs any more.", removed},
}

func TestRecipes(t *testing.T) {
	places := []*place{
		{recipe: "service", name: "plain", addr: "127.0.0.1:8081", unit: "plain.service", url: "http://127.0.0.1:8081/root",
			setUp: setUpGreeter, root: greeterRoot, want: greeting, lossy: true, late: true},
		{recipe: "socket", name: "handed", addr: "127.0.0.1:8082", unit: "handed@*.service", url: "http://127.0.0.1:8082/root",
			setUp: setUpGreeter, root: greeterRoot, want: greeting, late: true},
		{recipe: "nginx", name: "edge", addr: "127.0.0.1:8443", unit: "nginx.service", url: "https://127.0.0.1:8443/",
			setUp: setUpNginx, root: nginxRoot, want: certificateOf},
	}
	t.Run("all", func(t *testing.T) {
		for _, p := range places {
			t.Run(p.recipe, func(t *testing.T) {
				t.Parallel()
				p.setUp(t, p)
				for _, trial := range trials {
					verdict := ""
					if !t.Run(trial.name, func(t *testing.T) { verdict = trial.run(t, p) }) {
						return // the next one begins with what this one has left
					}
					p.verdicts = append(p.verdicts, verdict)
				}
			})
		}
	})
	if !t.Failed() {
		matrix(t, places)
	}
}

// matrix prints the document, for run.sh.
func matrix(t *testing.T, places []*place) {
	t.Helper()
	head, line, trial := "| recipe | version |", "|---|---|", "| trial | |\n|---|---|\n"
	for _, c := range trials {
		head += " " + c.name + " |"
		line += "---|"
		trial += fmt.Sprintf("| %s | %s |\n", c.name, c.about)
	}
	versions := "systemd " + strings.Fields(run(t, "systemctl", "--version"))[1]
	doc := "# Matrix of services\n\nWritten by `make systemd`, which runs these recipes under a real systemd in a container.\n\n" + head + "\n" + line + "\n"
	for _, p := range places {
		doc += fmt.Sprintf("| %s | %s%s | %s |\n", p.recipe, p.version, versions, strings.Join(p.verdicts, " | "))
	}
	for line := range strings.Lines(doc + "\n" + trial) {
		fmt.Print("matrix: " + line)
	}
}

// setUpGreeter does what the page of a service says.
func setUpGreeter(t *testing.T, p *place) {
	text := strings.ReplaceAll(read("docs/recipes/"+p.recipe+".md"), "localhost:8080", p.addr)
	text = strings.ReplaceAll(strings.ReplaceAll(text, "ListenStream=8080", "ListenStream="+p.addr), "web", p.name)
	files := []string{"/etc/systemd/system/" + p.name + ".service"}
	enabled := p.name + ".service"
	if p.recipe == "socket" {
		enabled = p.name + ".socket"
		files = []string{"/etc/systemd/system/" + enabled, "/etc/systemd/system/" + p.name + "@.service"}
	}
	all := blocks(text, "## On the host")
	if len(all) != len(files)+2 {
		t.Fatalf("page of %s: %d blocks, want %d", p.recipe, len(all), len(files)+2)
	}
	for i, file := range files {
		write(t, file, all[i], 0o644)
	}
	// So few that starts of one version would be held against the next.
	dropIn(t, p.name+".service", "[Unit]\nStartLimitIntervalSec=1h\nStartLimitBurst=3\n")
	run(t, "systemctl", "enable", enabled)
	run(t, "install", "-m", "0755", "scripts/hooks/"+p.recipe+".sh", "/etc/deploy-agent/")
	script := strings.Replace(all[len(files)], "exec ", "export STEADY=0.3\nexec ", 1)
	write(t, "/etc/deploy-agent/"+p.name+".sh", script, 0o755)
	p.start(t, all[len(files)+1])
}

// start starts the agent with the settings of the page.
func (p *place) start(t *testing.T, settings string) {
	t.Helper()
	p.publish(t, "")
	configure(t, p.name, "v1")
	start(t, p.name, settings+"DEPLOY_AGENT_POLL=100ms\nDEPLOY_AGENT_VERIFY_TOTAL=3s\n")
}

func greeterRoot(_ *testing.T, p *place, mode string) map[string]string {
	return map[string]string{"bin/" + p.name: read("/deploytest/guest"), "mode": mode, "addr": p.addr}
}

func greeting(root string) string { return fmt.Sprintf(`{"root":%q}`, root) }

// publish adds the next version, which behaves as mode says.
func (p *place) publish(t *testing.T, mode string) (version string) {
	t.Helper()
	p.number++
	version = fmt.Sprintf("v%d", p.number)
	files := p.root(t, p, mode)
	files["version"] = version
	publish(t, p.name, version, files)
	return version
}

// deploy adds a version and waits until it serves.
func (p *place) deploy(t *testing.T, mode string) {
	t.Helper()
	version := p.publish(t, mode)
	change(t, p.name, version)
	p.awaitServed(t, version)
}

func (p *place) awaitServed(t *testing.T, version string) {
	t.Helper()
	awaitLive(t, p.name, version)
	s := statusOf(p.name)
	want := p.want("/var/lib/deploy-agent/" + p.name + "/" + s.Live.Root)
	if got, err := p.ask(); err != nil || got != want || s.Live.Verification != "verified" {
		t.Errorf("served is %s, %v, want %s of %s, which is %s", got, err, want, s.Live.Root, s.Live.Verification)
	}
}

func (p *place) ask() (string, error) {
	client := p.client(false)
	defer client.CloseIdleConnections()
	return get(client, p.url)
}

func (p *place) client(keep bool) *http.Client {
	return &http.Client{Timeout: 30 * time.Second, Transport: &http.Transport{
		DisableKeepAlives: !keep, TLSClientConfig: &tls.Config{InsecureSkipVerify: true},
	}}
}

// get returns what is served: the certificate's digest, or else the body.
func get(client *http.Client, url string) (string, error) {
	r, err := client.Get(url)
	if err != nil {
		return "", err
	}
	defer r.Body.Close()
	b, err := io.ReadAll(r.Body)
	if err == nil && r.StatusCode != http.StatusOK {
		err = fmt.Errorf("status %d", r.StatusCode)
	}
	if r.TLS != nil {
		return fmt.Sprintf("%x", sha256.Sum256(r.TLS.PeerCertificates[0].Raw)), err
	}
	return string(b), err
}

// programs returns the processes of the recipe's units.
func (p *place) programs(t *testing.T) []string {
	t.Helper()
	var pids []string
	for line := range strings.Lines(run(t, "systemctl", "show", "-p", "MainPID", "--value", p.unit)) {
		if line = strings.TrimSpace(line); line != "" && line != "0" {
			pids = append(pids, line)
		}
	}
	return pids
}

func good(t *testing.T, p *place) string {
	p.awaitServed(t, "v1")
	p.deploy(t, "")
	if n := p.programs(t); len(n) != 1 {
		t.Errorf("programs: %v, want one", n)
	}
	return "deployed"
}

func nothingNew(t *testing.T, p *place) string {
	before := p.programs(t)
	run(t, "deploy-agent", "run-once", "-name", p.name)
	if after := p.programs(t); fmt.Sprint(after) != fmt.Sprint(before) {
		t.Errorf("processes %v, then %v", before, after)
	}
	return "no hook run"
}

func validateFails(t *testing.T, p *place) string {
	before := p.programs(t)
	p.refuse(t, refused)
	if after := p.programs(t); fmt.Sprint(after) != fmt.Sprint(before) {
		t.Errorf("processes %v, then %v", before, after)
	}
	return "refused before the switch"
}

// refuse publishes a version that comes to nothing, and sees that the old one
// serves; then the old one is the wanted one again.
func (p *place) refuse(t *testing.T, mode string) {
	t.Helper()
	live := statusOf(p.name).Live
	old, known := strings.TrimPrefix(live.Layers[0], p.name+":"), len(statusOf(p.name).Failed)
	change(t, p.name, p.publish(t, mode))
	await(t, unitOf(p.name), 30*time.Second, "a version that "+mode+" taken back", func() bool { return len(statusOf(p.name).Failed) > known })
	p.awaitServed(t, old)
	if now := statusOf(p.name).Live; now.Root != live.Root {
		t.Errorf("live is %s, want %s", now.Root, live.Root)
	}
	change(t, p.name, old)
}

func (p *place) takenBack(t *testing.T, mode string) string {
	var served, failed atomic.Int64
	ctx, cancel := context.WithCancel(t.Context())
	var load sync.WaitGroup
	load.Go(func() { p.load(ctx, false, &served, &failed) })
	p.refuse(t, mode)
	cancel()
	load.Wait()
	if !p.lossy && failed.Load() > 0 {
		t.Errorf("%d of %d requests failed", failed.Load(), served.Load()+failed.Load())
	}
	if len(p.programs(t)) != 1 {
		t.Errorf("programs: %v", p.programs(t))
	}
	return "rolled back, verified again"
}

func slowStart(t *testing.T, p *place) string {
	if !p.late {
		return "not tried"
	}
	began := time.Now()
	p.deploy(t, late)
	if took := time.Since(began); took < lateBy {
		t.Errorf("deployed after %v", took)
	}
	return "deployed"
}

// notRunning: the program was killed, and systemd has given up.
func notRunning(t *testing.T, p *place) string {
	run(t, "systemctl", "stop", p.unit)
	p.deploy(t, "")
	return "started, deployed"
}

// afterBoot: what is enabled serves without the agent.
func afterBoot(t *testing.T, p *place) string {
	run(t, "systemctl", "stop", unitOf(p.name), p.unit)
	if p.recipe == "socket" {
		run(t, "systemctl", "restart", p.name+".socket")
	} else {
		run(t, "systemctl", "start", p.unit)
	}
	if got, err := p.ask(); err != nil || got == "" {
		t.Errorf("served: %s, %v", got, err)
	}
	run(t, "systemctl", "start", unitOf(p.name))
	p.deploy(t, "")
	if n := p.programs(t); len(n) != 1 {
		t.Errorf("programs: %v, want one", n)
	}
	return "serves; then deployed"
}

const switches20 = 20

func switching(t *testing.T, p *place) string {
	pair := []string{p.publish(t, ""), p.publish(t, "")}
	var served, failed, keptServed, keptFailed atomic.Int64
	ctx, cancel := context.WithCancel(t.Context())
	var load sync.WaitGroup
	for range 3 {
		load.Go(func() { p.load(ctx, false, &served, &failed) })
		load.Go(func() { p.load(ctx, true, &keptServed, &keptFailed) })
	}
	for i := range switches20 {
		change(t, p.name, pair[i%2])
		p.awaitServed(t, pair[i%2])
	}
	cancel()
	load.Wait()
	if served.Load() == 0 || keptServed.Load() == 0 {
		t.Error("there was no load")
	}
	if lost := failed.Load() + keptFailed.Load(); !p.lossy && lost > 0 {
		t.Errorf("%d requests failed: %s", lost, run(t, "journalctl", "-u", p.unit, "-n", "80", "-o", "short-precise"))
	}
	return fmt.Sprintf("%d of %d requests dropped on new connections, %d of %d on kept ones",
		failed.Load(), served.Load()+failed.Load(), keptFailed.Load(), keptServed.Load()+keptFailed.Load())
}

func removed(t *testing.T, p *place) string {
	run(t, "systemctl", "stop", unitOf(p.name))
	script := "/etc/deploy-agent/" + p.name + ".sh"
	run(t, "deploy-agent", "remove", "-name", p.name, "-remove-script", script, "-yes")
	if n := p.programs(t); len(n) != 0 {
		t.Errorf("programs: %v, want none", n)
	}
	if got, err := p.ask(); err == nil {
		t.Errorf("still served: %s", got)
	}
	return "stopped"
}

// load asks again and again until ctx is done, each time on a new connection, or
// on one that is kept. A request that has begun is waited for. As every client of
// HTTP may, that of Go asks once more where a kept connection was closed before an answer.
func (p *place) load(ctx context.Context, keep bool, served, failed *atomic.Int64) {
	client := p.client(keep)
	defer client.CloseIdleConnections()
	for ctx.Err() == nil {
		if _, err := get(client, p.url); err != nil {
			if failed.Add(1) <= 3 {
				fmt.Fprintf(os.Stderr, "%s: request failed, kept %v: %v at %v\n", p.recipe, keep, err, time.Now().Format("05.000000"))
			}
			exec.Command("sleep", "0.01").Run()
			continue
		}
		served.Add(1)
	}
}
