package agentcmd

import (
	"path/filepath"
	"slices"

	"deploytools/agent"
	"deploytools/registry/console"
)

// unitOf returns the unit of the agent of a directory, by the files of settings in etc;
// shared: it has other configurations as well. "": the directory is not of one of our units.
func unitOf(etc, dir, name string) (unit string, shared bool) {
	if name == "" || dir != filepath.Join(agent.UnitDir, name) {
		return "", false
	}
	vars, _ := readEnvironment(filepath.Join(etc, "environment")) // none: it names none
	if slices.Contains(splitLines([]string{vars[envPrefix+"_NAME"]}), name) {
		return "deploy-agent", true
	}
	return "deploy-agent@" + name, false
}

// startHint is how the agent of a directory is started.
func startHint(dir, name string) string {
	if unit, _ := unitOf(unitSettings, dir, name); unit != "" {
		return "systemctl start " + unit
	}
	return "start the agent of this directory"
}

// endHint is how the agent of a directory is ended, for good.
func endHint(dir, name string) string {
	const first = "end the agent first: "
	switch unit, shared := unitOf(unitSettings, dir, name); {
	case shared:
		return first + "take " + name + " out of " + envPrefix + "_NAME in " + console.Join([]string{filepath.Join(unitSettings, "environment")}) + ", then systemctl restart " + unit
	case unit != "":
		return first + "systemctl disable --now " + unit
	}
	return first + "the process that holds the lock, or systemctl disable --now UNIT where a unit has started it; where it has other configurations, take this one out of its names instead"
}
