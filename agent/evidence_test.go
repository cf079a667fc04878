package agent

import (
	"archive/tar"
	"bytes"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"slices"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"deploytools/registry/wire"
)

func TestEvidenceSaysHowADeploymentEnded(t *testing.T) {
	bubble(t, func(t *testing.T, h *host) {
		h.o.Hook.CheckScript = "./check.sh"
		h.src.put("v1", one("1"))
		h.want("v1", nil)
		h.patience = 3 * time.Second
		h.src.put("v2", with(failVerify))
		h.want("v1", ErrRolledBack)
		s := OpenDeployments(h.dir)
		ids, err := s.IDs()
		if err != nil || len(ids) != 2 || number(ids[0]) <= number(ids[1]) {
			t.Fatalf("deployments %q, %v, want two, the newest first", ids, err)
		}
		e, err := s.Evidence(ids[0])
		must(err)
		d := e.Deployment
		if e.Outcome != RolledBack || d.Verdict != Bad || !strings.Contains(d.Reason, failVerify) || d.Baseline == nil || d.Checks == nil || d.Restored == nil {
			t.Errorf("evidence %+v of %+v", e, d)
		}
		var states, labels []string
		var took time.Duration
		for _, stay := range e.States {
			states = append(states, string(stay.State))
			took += stay.Took
		}
		for _, p := range e.Programs {
			labels = append(labels, p.Label)
			if out, err := s.Output(ids[0], &p); string(out) != p.Label+" of "+ids[0]+"\n" || err != nil || p.Failure != "" {
				t.Errorf("%+v has printed %q, %v", p, out, err)
			}
		}
		if got, want := strings.Join(states, " "), "Fetching Unpacking Checking Switching Hooking Verifying Restoring Rehooking Reverifying Discarding"; got != want {
			t.Errorf("states %s, want %s", got, want)
		}
		if i := slices.Index(states, "Verifying"); e.States[i].Took != h.patience || took != d.Ended.Sub(e.States[0].At) {
			t.Errorf("stays %v, want 3 s in Verifying, and the whole time in all", e.States)
		}
		slices.Sort(labels)
		if got := strings.Join(labels, " "); got != "check deploy rollback" {
			t.Errorf("programs %s", got)
		}
		if e, err := s.Evidence(ids[1]); err != nil || e.Outcome != Committed || e.Deployment.New.Verification != Verified || e.Deployment.New.By != ids[1] {
			t.Errorf("evidence of v1: %+v, %v", e, err)
		}
	})
}

func TestStaysLastUntilTheNextStateOrTheEnd(t *testing.T) {
	at := time.Date(2000, 1, 1, 0, 0, 0, 0, time.UTC)
	d := Deployment{Events: []Event{{Fetching, at}, {Unpacking, at.Add(time.Second)}}}
	if s := d.stays(); s[0].Took != time.Second || s[1].Took != 0 {
		t.Errorf("under way: %v", s)
	}
	d.Ended = at.Add(4 * time.Second)
	if s := d.stays(); s[1].Took != 3*time.Second {
		t.Errorf("ended: %v", s)
	}
}

// What stands in the way of evidence stands in the way of nothing else, and
// what was missed is made up for.
func TestEvidenceIsMadeWhenItCanBe(t *testing.T) {
	bubble(t, func(t *testing.T, h *host) {
		h.o.Hook.Script = "" // a hook has files of its own there
		stop := h.serve()
		defer stop()
		pass(time.Minute)
		dir := h.dir + "/deployments"
		must(os.Remove(dir))
		must(os.WriteFile(dir, nil, 0o600)) // for root, no mode would be in the way
		var ids []string
		for i := range 3 {
			h.src.put(fmt.Sprint("v", i), one(fmt.Sprint(i)))
			pass(time.Hour)
			if want := fmt.Sprint("v", i); h.live() != want {
				t.Fatalf("%q is live, want %q\n%s", h.live(), want, h.logged)
			}
			ids = append(ids, h.agent.Record().Last.ID)
		}
		if n := h.lines("WARN", "evidence not written"); n < 3 || n > 6 {
			t.Errorf("said %d times in 3 hours\n%s", n, h.logged)
		}
		must(os.Remove(dir))
		pass(time.Hour)
		for _, id := range ids {
			if e, err := OpenDeployments(h.dir).Evidence(id); err != nil || e.Outcome != Committed || e.Deployment.ID != id {
				t.Errorf("evidence of %s: %+v, %v", id, e, err)
			}
			if _, err := os.Stat(dir + "/" + id + "/evidence.json"); err != nil {
				t.Error(err)
			}
		}
		h.src.put("v9", one("9"))
		pass(time.Hour)
		if r := h.agent.Record(); len(r.Unproven) != 0 {
			t.Errorf("still on the record: %+v", r.Unproven)
		}
	})
}

func TestEvidenceOfWhatServesStays(t *testing.T) {
	bubble(t, func(t *testing.T, h *host) {
		h.o.Keep.Evidence = 2
		must(os.MkdirAll(h.dir+"/deployments/.000009-0123456789ab.partial", 0o700)) // left by a kill
		must(os.MkdirAll(h.dir+"/deployments/mine", 0o700))
		var ids []string
		for i, layer := range [][]byte{one("0"), one("1"), one("2"), with(failHook), with(failVerify), archive(files{"../x": ""})} {
			h.src.put(fmt.Sprint("v", i), layer)
			h.run()
			ids = append(ids, h.agent.Record().Last.ID)
		}
		left, err := OpenDeployments(h.dir).IDs()
		must(err)
		if want := []string{ids[5], ids[4], ids[2], ids[1]}; !slices.Equal(left, want) {
			t.Errorf("evidence of %q is left of %q, want %q", left, ids, want)
		}
		if got := h.names("deployments"); !slices.Contains(got, "mine") || len(got) != 5 {
			t.Errorf("deployments holds %q", got)
		}
	})
}

func TestExportOfEvidenceIsAlwaysTheSame(t *testing.T) {
	bubble(t, func(t *testing.T, h *host) {
		h.src.put("v1", with(failHook))
		h.want("", ErrRolledBack)
		s, id := OpenDeployments(h.dir), h.agent.Record().Last.ID
		must(os.WriteFile(s.path(id, "deploy.lock"), nil, 0o600))
		must(os.WriteFile(s.path(id, ".atomic-x.tmp"), nil, 0o600))
		var one, two bytes.Buffer
		must(s.WriteTar(id, &one))
		time.Sleep(time.Hour)
		must(os.Chtimes(s.path(id, "evidence.json"), time.Now(), time.Now()))
		must(s.WriteTar(id, &two))
		if !bytes.Equal(one.Bytes(), two.Bytes()) {
			t.Error("two exports differ")
		}
		var names []string
		for r := tar.NewReader(&one); ; {
			header, err := r.Next()
			if err == io.EOF {
				break
			}
			must(err)
			names = append(names, header.Name)
		}
		if want := []string{id + "/", id + "/deploy.attempt.json", id + "/deploy.output", id + "/deploy.state.json", id + "/deploy.status.json", id + "/evidence.json"}; !slices.Equal(names, want) {
			t.Errorf("the export holds %q, want %q", names, want)
		}
		if err := s.WriteTar("000099-0123456789ab", io.Discard); !errors.Is(err, wire.ErrNotFound) {
			t.Errorf("export of nothing: %v", err)
		}
	})
}

func TestPlainTarReadsAnExport(t *testing.T) {
	bubble(t, func(t *testing.T, h *host) {
		h.src.put("v1", one("1"))
		h.want("v1", nil)
		f, err := os.Create(t.TempDir() + "/x.tar")
		must(err)
		must(OpenDeployments(h.dir).WriteTar(h.agent.Record().Last.ID, f))
		must(f.Close())
		out, err := exec.Command("tar", "-xOf", f.Name(), "--wildcards", "*/deploy.output").CombinedOutput()
		if want := "deploy of " + h.agent.Record().Last.ID + "\n"; err != nil || string(out) != want {
			t.Errorf("tar: %q, %v, want %q", out, err, want)
		}
	})
}

// The output of a run of the program under way, of one that was cut off, and
// of one whose result cannot be read.
func TestProgramsTellOfEveryRun(t *testing.T) {
	h := newHookTest(t, "echo hello; echo $PPID > $D/say; cat $D/go; exit 3")
	end, _ := h.began(h.h, t.Context())
	supervisor := h.said()[0]
	p := programsIn(h.c.Dir)
	if len(p) != 1 || !p[0].Running || p[0].Output != 6 || p[0].Attempt != 1 || p[0].Failure != "" {
		t.Errorf("under way: %+v", p)
	}
	h.goOn()
	end()
	if p := programsIn(h.c.Dir)[0]; p.Running || p.Exit != 3 || !strings.Contains(p.Failure, "exit status 3") || p.Took <= 0 {
		t.Errorf("ended: %+v", p)
	}
	awaitEnd(supervisor)
	must(os.Remove(h.c.file("status.json")))
	if p := programsIn(h.c.Dir)[0]; p.Running || p.Failure != "its end was not seen" {
		t.Errorf("cut off: %+v", p)
	}
	must(os.WriteFile(h.c.file("status.json"), []byte("{"), 0o600))
	if p := programsIn(h.c.Dir)[0]; !strings.Contains(p.Failure, "cannot read") {
		t.Errorf("damaged: %+v", p)
	}
}

// A hook can do anything in the directory of its output.
func TestOutputThatIsNoFile(t *testing.T) {
	bubble(t, func(t *testing.T, h *host) {
		h.seam = func(point string) {
			if point == "after deploy" {
				dir := h.dir + "/deployments/" + h.agent.Record().Deployment.ID
				must(os.Remove(dir + "/deploy.output"))
				must(unix.Mkfifo(dir+"/deploy.output", 0o600))
				must(os.Symlink("/etc/passwd", dir+"/x.output"))
			}
		}
		h.src.put("v1", one("1"))
		h.want("v1", nil)
		if e, err := OpenDeployments(h.dir).Evidence(h.agent.Record().Last.ID); err != nil || len(e.Programs) != 0 {
			t.Errorf("evidence %+v, %v", e, err)
		}
	})
}

func TestFollowGivesTheLinesAsTheyCome(t *testing.T) {
	h := realHost(t, "echo first; echo x > began; read x < go; "+makeLive)
	must(unix.Mkfifo(h.dir+"/go", 0o600))
	must(unix.Mkfifo(h.dir+"/began", 0o600))
	h.src.put("v1", one("1"))
	ended := make(chan error, 1)
	go func() { ended <- h.runReal(t.Context()) }()
	if _, err := os.ReadFile(h.dir + "/began"); err != nil {
		t.Fatal(err)
	}
	s := OpenDeployments(h.dir)
	id, err := s.FindOutput("", "deploy")
	must(err)
	if !s.UnderWay(id) {
		t.Errorf("%s is not under way", id)
	}
	if e, err := s.Evidence(id); err != nil || e.Outcome != UnderWay || !e.Programs[0].Running {
		t.Errorf("evidence of what is under way: %+v, %v", e, err)
	}
	var lines []string
	must(s.Follow(t.Context(), id, "", func(label, text string) {
		if lines = append(lines, label+": "+text); text == "first" {
			must(os.WriteFile(h.dir+"/go", []byte("go\n"), 0o600))
		}
	}))
	if want := []string{"deploy: first", "deploy: this is deploy"}; !slices.Equal(lines, want) {
		t.Errorf("followed %q, want %q", lines, want)
	}
	if err := <-ended; err != nil {
		t.Errorf("Run = %v", err)
	}
}

func TestFind(t *testing.T) {
	dir := t.TempDir()
	for _, name := range []string{"000009-0123456789ab", "000010-0123456789ab", "1000000-0123456789ab", ".000011-0123456789ab.partial", "mine"} {
		must(os.MkdirAll(dir+"/deployments/"+name, 0o700))
	}
	s := OpenDeployments(dir)
	for prefix, want := range map[string]string{"": "1000000-0123456789ab", "9": "000009-0123456789ab", "10": "000010-0123456789ab", "100": "1000000-0123456789ab",
		"000010": "000010-0123456789ab", "000009-0123456789ab": "000009-0123456789ab", "mine": "", "..": "", "2": ""} {
		got, err := s.Find(prefix)
		if got != want || errors.Is(err, wire.ErrNotFound) != (want == "") {
			t.Errorf("Find(%q) = %q, %v, want %q", prefix, got, err, want)
		}
	}
}
