package sftpfs

import (
	"os"
	"slices"
	"strings"
	"testing"

	"deploytools/layers/digest"
	"deploytools/registry"
	"deploytools/registry/wire"
)

// What a session may not do is on record, with who asked for it and what for;
// what is merely not there is not.
func TestEveryRefusalIsOnRecord(t *testing.T) {
	r := open(t, options())
	stock(t, r)
	entries := func() []registry.Entry {
		var out []registry.Entry
		for e, err := range r.Audit(t.Context(), registry.AuditFilter{}) {
			if err != nil {
				t.Fatal(err)
			}
			if e.Status != wire.OK {
				out = append(out, e)
			}
		}
		return out
	}
	agent := registry.Caller{User: "deploy-agent", Role: registry.Agent, Fingerprint: "SHA256:host", Remote: "192.0.2.9"}
	viewer := registry.Caller{User: "eve", Role: registry.Viewer, Fingerprint: "SHA256:eve", Remote: "192.0.2.7"}
	asAgent, _ := dial(t, Agent(t.Context(), r, agent, nil))
	narrow := registry.Caller{User: "deploy-agent", Role: registry.Agent, Fingerprint: "SHA256:narrow", Remote: "192.0.2.8", Configs: "other"}
	asNarrow, _ := dial(t, Agent(t.Context(), r, narrow, nil))
	layer, nothing := "/files/"+digest.Of([]byte("code v2")).String(), "/files/"+digest.Of([]byte("nothing")).String()
	asViewer, _ := dial(t, Operator(t.Context(), r, viewer, nil, nil))
	for _, test := range []struct {
		do   func() error
		want string // user, words and outcome; "": not on record
	}{
		{func() error { _, err := asAgent.OpenFile("/up", os.O_CREATE|os.O_WRONLY); return err }, "deploy-agent: sftp put /up"},
		{func() error { return asAgent.Mkdir("/dir") }, "deploy-agent: sftp mkdir /dir"},
		{func() error { _, err := asViewer.OpenFile("/up", os.O_CREATE|os.O_WRONLY); return err }, "eve: sftp put /up"},
		{func() error { return asViewer.Rename("/configs/web.json", "/x") }, "eve: sftp rename /configs/web.json /x"},
		{func() error { _, err := asNarrow.Open("/configs/web.json"); return err }, "deploy-agent: sftp get /configs/web.json"},
		{func() error { _, err := asNarrow.Open(layer); return err }, "deploy-agent: sftp get " + layer},
		{func() error { _, err := asNarrow.Stat(layer); return err }, "deploy-agent: sftp stat " + layer},
		{func() error { _, err := asNarrow.Open(nothing); return err }, ""},
		{func() error { _, err := asViewer.Open("/nothing"); return err }, ""},
		{func() error { _, err := asViewer.ReadDir("/nothing"); return err }, ""},
	} {
		before := len(entries())
		if test.do() == nil {
			t.Fatalf("%s: succeeds", test.want)
		}
		after := entries()[before:]
		if test.want == "" {
			if len(after) != 0 {
				t.Errorf("on record is %+v", after)
			}
			continue
		}
		if len(after) != 1 || after[0].User+": "+strings.Join(after[0].Command, " ") != test.want || after[0].Status != wire.Denied || after[0].Result == "" {
			t.Errorf("%s: on record is %+v", test.want, after)
		}
		if i := slices.IndexFunc(after, func(e registry.Entry) bool { return !strings.HasPrefix(e.Remote, "192.0.2.") }); i >= 0 {
			t.Errorf("%s: on record is %+v", test.want, after[i])
		}
	}
}

// Who brought what, under which name, is on record, also when it is no version
// in the end.
func TestWhatIsUploadedIsOnRecord(t *testing.T) {
	r := open(t, options())
	c, _ := dial(t, Operator(t.Context(), r, ann, nil, nil))
	f, err := c.Create("/up")
	if err == nil {
		_, err = f.Write([]byte("content"))
	}
	if err == nil {
		err = f.Close()
	}
	if err == nil {
		err = c.Rename("/up", "/moved")
	}
	if err == nil {
		err = c.Remove("/moved")
	}
	if err != nil {
		t.Fatal(err)
	}
	var got []string
	for e, err := range r.Audit(t.Context(), registry.AuditFilter{}) {
		if err != nil || e.Key != ann.Fingerprint || e.Status != wire.OK {
			t.Errorf("on record is %+v, %v", e, err)
		}
		got = append(got, strings.Join(e.Command, " ")+": "+e.Result)
	}
	want := []string{
		"sftp put /up: uploaded 7 bytes, " + digest.Of([]byte("content")).String(), "sftp rename /up /moved: renamed", "sftp remove /moved: removed 1 uploads",
	}
	if !slices.Equal(got, want) {
		t.Errorf("on record is %q, want %q", got, want)
	}
}
