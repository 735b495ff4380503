// Command k8s holds manifests on its standard input against Kubernetes' own types:
// an unknown member or a value of another type is an error.
package main

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"os"

	batchv1 "k8s.io/api/batch/v1"
	"sigs.k8s.io/yaml"
)

func main() {
	if err := run(os.Stdin); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}

func run(in io.Reader) error {
	text, err := io.ReadAll(in)
	if err != nil {
		return err
	}
	var job batchv1.CronJob
	if err := yaml.UnmarshalStrict(bytes.TrimSpace(text), &job); err != nil {
		return err
	}
	switch {
	case job.APIVersion != "batch/v1" || job.Kind != "CronJob":
		return fmt.Errorf("it is a %s %s, not a CronJob", job.APIVersion, job.Kind)
	case job.Name == "" || job.Spec.Schedule == "":
		return errors.New("it has no name, or no schedule")
	case len(job.Spec.JobTemplate.Spec.Template.Spec.Containers) == 0:
		return errors.New("it has no container")
	}
	return nil
}
