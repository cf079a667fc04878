package agent

import (
	"os"
	"slices"
	"strings"
	"testing"
)

// The check script of another user looks at what will be published: at what it may
// read there, and at nothing else.
func TestCheckScriptOfAUserSeesWhatIsStaged(t *testing.T) {
	h := realHost(t, makeLive)
	h.o.Hook.User = stranger(t)
	h.o.Verify.Checks = nil
	etc := memoryDir(t)
	open(t, etc)
	must(os.Chmod(h.dir, 0o777)) // the scripts write into it
	must(os.WriteFile(etc+"/beside", []byte("beside"), 0o644))
	h.o.Publish.Files = []Mapping{mapping("cert=" + etc + "/cert,mode=0644"), mapping("key=" + etc + "/key,mode=0600")}
	h.o.Hook.CheckScript = h.dir + "/check.sh"
	h.script("check.sh", "for f in cert key beside; do cat $DEPLOY_STAGED"+etc+"/$f >> seen 2>/dev/null || echo no $f >> seen; done; :")
	h.src.put("v1", archive(files{"cert": "new cert\n", "key": "new key\n"}))
	a := h.new()
	a.hooks = &hookRunner{log: a.log(), user: h.o.Hook.User}
	if err := a.Run(t.Context()); err != nil || h.live() != "v1" {
		t.Fatalf("Run = %v\n%s", err, h.logged)
	}
	b, err := os.ReadFile(h.dir + "/seen")
	must(err)
	if got, want := strings.Fields(string(b)), []string{"new", "cert", "no", "key", "beside"}; !slices.Equal(got, want) {
		t.Errorf("it sees %q, want %q\n%s", got, want, h.logged)
	}
}
