package testserver

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"testing"
	"time"
)

// javaFlags make a broker that lives for a test quick to start.
var javaFlags = []string{"-Xms96m", "-Xmx512m", "-XX:TieredStopAtLevel=1", "-XX:+UseSerialGC", "-Djava.awt.headless=true"}

// archive holds the classes of a broker as the Java machine has them in memory: it starts
// quicker with them.
const archive = "classes.jsa"

// FetchKafka returns a folder with the jars of a Kafka broker, which Maven fetches once, as
// tools/kafka names them, into the user's cache.
func FetchKafka(ctx context.Context) (string, error) {
	root, err := moduleRoot(ctx)
	if err != nil {
		return "", err
	}
	pom, err := os.ReadFile(filepath.Join(root, "tools/kafka/pom.xml"))
	if err != nil {
		return "", err
	}
	java, err := installed("java")
	if err != nil {
		return "", err
	}
	version, err := exec.CommandContext(ctx, java, "-Xinternalversion").Output() // which the archive is for
	if err != nil {
		return "", fmt.Errorf("asking java for its version: %w", err)
	}
	dir, err := fetchOnce("kafka", append(pom, version...), func(fresh string) error {
		maven, err := installed("mvn")
		if err != nil {
			return err
		}
		if err := os.WriteFile(filepath.Join(fresh, "pom.xml"), pom, 0o644); err != nil {
			return err
		}
		return run(ctx, fresh, maven, "--batch-mode", "--quiet", "dependency:copy-dependencies", "-DoutputDirectory=jars", "-DincludeScope=runtime")
	})
	if err != nil {
		return "", err
	}
	return dir, archiveClasses(ctx, dir)
}

// archiveClasses lets a broker start and end once, and keeps its classes.
func archiveClasses(ctx context.Context, dir string) error {
	unlock, err := locked(filepath.Join(dir, archive))
	if err != nil {
		return err
	}
	defer unlock()
	if _, err := os.Stat(filepath.Join(dir, archive)); err == nil {
		return nil
	}
	temp, err := os.MkdirTemp("", "keyturn-kafka-")
	if err != nil {
		return err
	}
	defer os.RemoveAll(temp)
	fresh := filepath.Join(temp, archive)
	k := &Kafka{dir: temp, jars: dir, flags: []string{"-XX:ArchiveClassesAtExit=" + fresh}}
	defer k.stop()
	if err := k.start(ctx, 1); err != nil {
		return err
	}
	if err := k.brokers[0].process.end(time.Minute); err != nil {
		return err
	}
	return errors.Join(copyProgram(fresh, filepath.Join(dir, archive+".new")), os.Rename(filepath.Join(dir, archive+".new"), filepath.Join(dir, archive)))
}

// Configs is the command line of Kafka's own program kafka-configs.
func (k *Kafka) Configs(t testing.TB) string {
	t.Helper()
	java, err := installed("java")
	Require(t, err)
	return fmt.Sprintf("%s -Xshare:auto -XX:TieredStopAtLevel=1 -cp %s/* kafka.admin.ConfigCommand", java, filepath.Join(k.jars, "jars"))
}
