package spec

import (
	"slices"
	"strings"
	"testing"
	"time"
)

func tcpCheck(name, addr string) Check { return Check{Type: TCP, Name: name, Addr: addr} }

func TestMerge(t *testing.T) {
	host := Part{Host, Spec{Checks: []Check{tcpCheck("", "h:1"), tcpCheck("site", "h:2")}, Successes: 1, Total: 2 * time.Minute}}
	conf := Part{Configuration, Spec{Checks: []Check{tcpCheck("site", "c:1"), tcpCheck("", "c:2"), tcpCheck("mail", "c:3")}, Successes: 3, Total: time.Minute}}
	root := Part{Root, Spec{Checks: []Check{tcpCheck("mail", "r:1"), tcpCheck("tcp-1", "r:2"), tcpCheck("", "r:3")}, Soak: time.Hour}}
	s, from := Merge(host, conf, root)
	var got []string
	for i, c := range s.Checks {
		got = append(got, string(from[i])+" "+c.Name+" "+c.Addr)
	}
	want := []string{"host tcp-2 h:1", "host site h:2", "configuration tcp-3 c:2", "configuration mail c:3", "root tcp-1 r:2", "root tcp-6 r:3"}
	if !slices.Equal(got, want) {
		t.Errorf("Merge: got\n%s\nwant\n%s", strings.Join(got, "\n"), strings.Join(want, "\n"))
	}
	if s.Successes != 3 || s.Total != 2*time.Minute || s.Soak != time.Hour {
		t.Errorf("Merge: %d in a row, %v, soak %v: want the greater of each", s.Successes, s.Total, s.Soak)
	}
	if err := s.Validate(FromHost); err != nil {
		t.Errorf("Merge: %v", err)
	}
	if host.Spec.Checks[0].Name != "" || conf.Spec.Checks[1].Name != "" {
		t.Error("Merge changed a part")
	}
}

func TestMergeOfOnePartLeavesItAlone(t *testing.T) {
	part := Part{Host, Spec{Checks: []Check{tcpCheck("", "h:1"), tcpCheck("a", "h:2"), tcpCheck("a", "h:3")}, Soak: 1}}
	s, from := Merge(part, Part{From: Configuration}, Part{From: Root})
	if !slices.Equal(s.Lines(), part.Spec.Lines()) || len(from) != 3 {
		t.Errorf("Merge: got %q from %q", s.Lines(), from)
	}
	if s.Validate(FromHost) == nil {
		t.Error("a name that one part gives twice: want it left for Validate to find")
	}
}

func TestParseLines(t *testing.T) {
	checks, err := ParseLines("# of the site\n\n  type=tcp,addr=a:1 \r\n#type=nonsense\ntype=tcp,addr=b:2,name=x", FromRegistry)
	if err != nil || len(checks) != 2 || checks[0].Addr != "a:1" || checks[1].Name != "x" {
		t.Errorf("ParseLines = %v, %v", checks, err)
	}
	for text, want := range map[string]string{
		"\ntype=tcp,adr=a:1": "line 2: ",
		"type=tcp,addr=a:1,name=x\ntype=tcp,addr=a:2,name=x": "given twice",
		"type=exec,arg=true":                "host's own flags only",
		strings.Repeat("#", MaxFileBytes+1): "larger than",
	} {
		if _, err := ParseLines(text, FromRegistry); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("ParseLines(%.40q) = %v, want %q in it", text, err, want)
		}
	}
}

func TestOnHostOnly(t *testing.T) {
	s := Spec{Checks: []Check{tcpCheck("", "a:1"), {Type: Exec, Args: []string{"true"}}, {Type: Process, Unit: "web", Name: "web"}}}
	if got := s.OnHostOnly(); !slices.Equal(got, []string{"exec-2", "web"}) {
		t.Errorf("OnHostOnly = %q", got)
	}
}
