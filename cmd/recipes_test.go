package cmd_test

import (
	"cmp"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

// A recipe is a script of scripts/hooks, as it is tried with the real server. All
// texts are templates: see place.fill. In the root of each version the harness
// puts certs/site.pem, certs/site.key, html/index.html and html/small.html, unless
// the recipe has them otherwise.
type recipe struct {
	name    string                       // scripts/hooks/NAME.sh, docs/recipes/NAME.md
	version string                       // shell command that prints the server's version
	root    map[string]string            // files of a good version
	spoiled map[string]files             // by trial, what its version has otherwise; "" in place of a text: not that file
	reload  string                       // shell commands in place of `systemctl reload-or-restart`: in the directory {dir}
	vars    []string                     // NAME=VALUE of the hook, besides RELOAD, STOP, PIDFILE and WAIT
	prepare func(t *testing.T, p *place) // what a host has before its first deployment; nil: nothing
	script  string                       // scripts/hooks/SCRIPT.sh where it has another name than the recipe
	flags   []string                     // of the agent, besides those of every recipe
	edits   string                       // directory in {dir} with what serves, as a root has it; "": the live root
	checks  []string                     // of -verify; none: that the certificate of the root is served
	refused string                       // what the check script says of the version of validateFails

	// What the server serves: the version's certificate, or its text; nil: its
	// certificate over TLS. And one request on a new connection; nil: over HTTPS.
	served func(p *place) (string, error)
	ask    func(p *place) error
	drops  int // that many of a thousand requests may fail, as is known, where switches follow on each other
	// Trials that make no sense with this server, and what the matrix says instead.
	without map[string]string
}

// hook returns the recipe's script.
func (r *recipe) hook() string { return "../scripts/hooks/" + cmp.Or(r.script, r.name) + ".sh" }

type files = map[string]string

// recipes are all that are tried without systemd.
var recipes = []recipe{nginxRecipe, publishedRecipe, apacheRecipe, haproxyRecipe, caddyRecipe, traefikRecipe, envoyRecipe, postfixRecipe, dovecotRecipe, staticRecipe, nodeRecipe, jvmRecipe}

// recipesVar names the variable that has recipes tried: those that it lists, with
// commas. See scripts/recipes.sh.
const recipesVar = "DEPLOY_TEST_RECIPES"

// TestRecipes tries each recipe on the real server.
func TestRecipes(t *testing.T) {
	chosen := chosen(t, os.Getenv(recipesVar))
	if len(chosen) > 0 && os.Geteuid() != 0 {
		t.Fatal("recipes are tried as root: their servers become other users")
	}
	for _, r := range chosen {
		t.Run(r.name, func(t *testing.T) {
			p := newPlace(t, &r)
			verdicts := map[string]string{}
			for _, trial := range trials {
				if instead := r.without[trial.name]; instead != "" {
					verdicts[trial.name] = instead
					continue
				}
				ran := t.Run(trial.name, func(t *testing.T) { verdicts[trial.name] = trial.run(t, p) })
				if !ran {
					t.FailNow() // the next one begins with what this one has left
				}
			}
			p.keepsKeys(t)
			if *update {
				updateMatrix(t, &r, verdicts)
			}
		})
	}
}

// chosen returns the recipes that the variable names.
func chosen(t *testing.T, names string) []recipe {
	t.Helper()
	if names == "" {
		return nil
	}
	var out []recipe
	for name := range strings.SplitSeq(names, ",") {
		i := slices.IndexFunc(recipes, func(r recipe) bool { return r.name == name })
		if i < 0 {
			t.Fatalf("%s names %q, which is no recipe", recipesVar, name)
		}
		out = append(out, recipes[i])
	}
	return out
}

// TestDocsRecipes: each script has a page, which shows it, is tried, and has its
// line in the matrix with a verdict for each trial.
func TestDocsRecipes(t *testing.T) {
	scripts, err := filepath.Glob("../scripts/hooks/*.sh")
	if err != nil || len(scripts) < len(recipes) {
		t.Fatalf("scripts: %q, %v", scripts, err)
	}
	rows := matrixRows(t)
	for _, script := range scripts {
		name := strings.TrimSuffix(filepath.Base(script), ".sh")
		if name == "shared" { // docs/outside-roots.md
			continue
		}
		text, err := os.ReadFile(script)
		if err != nil {
			t.Fatal(err)
		}
		checkDocument(t, "../docs/recipes/"+name+".md", "<!-- script -->", "<!-- /script -->", "```sh\n"+string(text)+"```\n")
		if !slices.Contains(underSystemd, name) && !slices.ContainsFunc(recipes, func(r recipe) bool { return r.name == name }) {
			t.Errorf("%s is not tried", script)
		}
	}
	checkDocument(t, matrixFile, "", "", matrix(rows))
	for _, r := range recipes {
		cells := rows[r.name]
		if len(cells) != len(trials)+1 || slices.Contains(cells, "") {
			t.Errorf("%s: %q is in matrix.md, want a version and %d verdicts: run `make recipes RECIPES=%s`", r.name, cells, len(trials), r.name)
		}
		if _, err := os.Stat(r.hook()); err != nil {
			t.Error(err)
		}
	}
}

const matrixFile = "../docs/recipes/matrix.md"

// matrixRows returns the cells behind the name in each row of the matrix.
func matrixRows(t *testing.T) map[string][]string {
	t.Helper()
	b, err := os.ReadFile(matrixFile)
	if err != nil && !*update {
		t.Fatal(err)
	}
	rows := map[string][]string{}
	for line := range strings.Lines(string(b)) {
		cells := strings.Split(strings.Trim(line, "| \n"), " | ")
		rows[cells[0]] = cells[1:]
	}
	return rows
}

// updateMatrix writes the matrix with what came of a recipe.
func updateMatrix(t *testing.T, r *recipe, verdicts map[string]string) {
	t.Helper()
	out, err := exec.Command("sh", "-c", r.version).CombinedOutput()
	if err != nil {
		t.Fatalf("%s: %v: %s", r.version, err, out)
	}
	rows := matrixRows(t)
	rows[r.name] = []string{strings.TrimSpace(string(out))}
	for _, trial := range trials {
		rows[r.name] = append(rows[r.name], verdicts[trial.name])
	}
	checkDocument(t, matrixFile, "", "", matrix(rows))
}

// matrix returns the document.
func matrix(rows map[string][]string) string {
	var b strings.Builder
	b.WriteString("# Matrix\n\nWritten by `make recipes`, which runs each recipe with the real server on loopback, without a systemd. What was run under one: [matrix-systemd.md](matrix-systemd.md).\n\n| recipe | version |")
	for _, trial := range trials {
		fmt.Fprintf(&b, " %s |", trial.name)
	}
	b.WriteString("\n" + strings.Repeat("|---", 2+len(trials)) + "|\n")
	for _, r := range recipes {
		if cells := rows[r.name]; cells != nil {
			fmt.Fprintf(&b, "| %s | %s |\n", r.name, strings.Join(cells, " | "))
		}
	}
	b.WriteString("\nTraefik and Envoy are untested: Debian has no packages of them. Their scripts were run with a stand-in, which does what their documents say: " +
		"it reads certificates again when a file was moved into the directory that it watches.\n")
	b.WriteString("\n| trial | |\n|---|---|\n")
	for _, trial := range trials {
		fmt.Fprintf(&b, "| %s | %s |\n", trial.name, trial.about)
	}
	return b.String()
}
