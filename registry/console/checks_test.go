package console

import (
	"strings"
	"testing"

	"deploytools/registry/wire"
)

func TestChecksOfAConfiguration(t *testing.T) {
	d := newDesk(t).walk()
	const check = `type=http,url=http://localhost/,body="a,b"`
	d.must(`changeconf -name project1 -verify '` + check + `' -verify type=tcp,addr=localhost:25,name=mail -soak 1m -verify-total 30s`)
	shown := d.must("showconf -v project1")
	for _, want := range []string{"Check:\t" + check + "\n", "Check:\ttype=tcp,name=mail,addr=localhost:25\n", "Verify-total:\t30s\n", "Soak:\t1m0s\n"} {
		if !strings.Contains(shown, want) {
			t.Errorf("showconf -v: got\n%s\nwant %q in it", shown, want)
		}
	}
	if plain := d.must("showconf project1"); strings.Contains(plain, "Check") {
		t.Errorf("showconf: got\n%s\nwant the layers only, as in the original tool set", plain)
	}
	json := d.must("showconf project1 -json")
	for _, want := range []string{`"name":"http-1","type":"http","target":"http://localhost/"`, `"name":"mail"`, `"total":"30s"`, `"soak":"1m0s"`} {
		if !strings.Contains(json, want) {
			t.Errorf("showconf -json: got\n%s\nwant %s in it", json, want)
		}
	}
	if got := d.must("changeconf -name project1 -verify ''"); got != "to roll back run:\n\trollback -name=\"project1\" -to=2\n" {
		t.Errorf("changeconf -verify '': got %q", got)
	}
	if got := d.must("showconf -v project1"); strings.Contains(got, "Check") || strings.Contains(got, "Soak") {
		t.Errorf("showconf -v of no checks: got\n%s", got)
	}
	const lost = "check removed type=http,url=http://localhost/,body=\"a,b\"\ncheck removed type=tcp,name=mail,addr=localhost:25\ncheck removed total=30s\ncheck removed soak=1m0s\n"
	if got := squeeze(d.must("diffconf project1")); got != lost {
		t.Errorf("diffconf: got\n%s\nwant\n%s", got, lost)
	}
	if got := d.must("changeconf -name project1 -soak 0 -dry-run"); !strings.Contains(got, "already") {
		t.Errorf("changeconf of nothing: got %q", got)
	}
	if _, stderr, status := d.run("changeconf -name project1 -verify type=tls,addr=localhost:443"); status != wire.Usage || !strings.Contains(stderr, "-verify:") {
		t.Errorf("changeconf of a check without a certificate: stderr %q, exit status %s", stderr, status)
	}
	if _, stderr, _ := d.run("changeconf -name project1 -verify type=exec,arg=bin/selftest"); !strings.Contains(stderr, "note: check \"exec-1\" looks into the host itself") {
		t.Errorf("changeconf of an exec check: stderr %q", stderr)
	}
}
