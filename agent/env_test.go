package agent

import (
	"encoding/json"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"deploytools/registry/wire"
)

func TestEnvironmentOfTheHook(t *testing.T) {
	bubble(t, func(t *testing.T, h *host) {
		for _, name := range passed {
			t.Setenv(name, "of "+name)
		}
		t.Setenv("SECRET", "x")
		h.o.Hook.CheckScript = "./check.sh"
		first := h.src.put("v1", one("1"))
		h.want("v1", nil)
		second := h.src.put("v2", with(failVerify))
		h.want("v1", ErrRolledBack)
		var got strings.Builder
		for _, env := range h.calls {
			fmt.Fprintf(&got, "# %s\n", filepath.Base(env["STATEFILE"]))
			for _, name := range slices.Sorted(maps.Keys(env)) {
				fmt.Fprintf(&got, "%s=%s\n", name, env[name])
			}
		}
		text := strings.NewReplacer(h.dir, "DIR", first.Hash.String(), "HASH1", second.Hash.String(), "HASH2",
			first.Hash.Short(), "SHORT1", second.Hash.Short(), "SHORT2",
			first.Layers[0].Hash.String(), "LAYER1", second.Layers[0].Hash.String(), "LAYER2").Replace(got.String())
		const golden = "testdata/environment.golden"
		if *update && os.Getenv("CI") == "" {
			must(os.MkdirAll("testdata", 0o755))
			must(os.WriteFile(golden, []byte(text), 0o644))
		}
		want, err := os.ReadFile(golden)
		must(err)
		if text != string(want) {
			t.Errorf("the environment is\n%s\nwant\n%s", text, want)
		}
		for i, c := range []*wire.Configuration{first, first, second, second, first} {
			b, err := os.ReadFile(h.calls[i]["STATEFILE"])
			must(err)
			var have wire.Configuration
			must(json.Unmarshal(b, &have))
			if have.Digest != c.Digest {
				t.Errorf("call %d: STATEFILE is about %s", i, have.Layers[0].Version)
			}
		}
	})
}

func TestRemoveScriptTakesAFirstDeploymentBack(t *testing.T) {
	bubble(t, func(t *testing.T, h *host) {
		h.o.Hook.RemoveScript = "./remove.sh"
		h.src.put("v1", with(failHook))
		h.want("", ErrRolledBack)
		last := h.calls[len(h.calls)-1]
		if len(h.calls) != 2 || last["DEPLOY_PHASE"] != "remove" || last["NEWROOT"] != "" || last["OLDROOT"] == "" || last["DEPLOY_REASON"] == "" {
			t.Errorf("calls %v", h.calls)
		}
		h.o.Hook.RemoveScript = ""
		h.src.put("v1", with(failVerify))
		h.want("", ErrRolledBack)
		if len(h.calls) != 3 {
			t.Errorf("without a remove script: calls %v", h.calls[2:])
		}
	})
}

func TestPathsAreAbsolute(t *testing.T) {
	bubble(t, func(t *testing.T, h *host) {
		t.Chdir(h.dir)
		h.o.Dir, h.o.StateFile = "d", "state.json"
		h.src.put("v1", one("1"))
		if err := h.run(); err != nil {
			t.Fatal(err)
		}
		for _, name := range []string{"NEWROOT", "STATEFILE", "DEPLOY_CURRENT"} {
			if !filepath.IsAbs(h.calls[0][name]) {
				t.Errorf("%s=%s", name, h.calls[0][name])
			}
		}
		if _, err := os.Stat(h.dir + "/state.json"); err != nil {
			t.Errorf("the state file is not in the working directory: %v", err)
		}
	})
}
