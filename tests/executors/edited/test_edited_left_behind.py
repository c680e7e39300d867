"""What edited code leaves in its folders to trip up whoever cleans them: the trial ends, and the study goes on."""

from project import main

NEST = """
if os.environ['LLMHPO_DIR'].endswith('.again'):  # the second run, which constant predictions bring about
    os.chdir(os.environ['LLMHPO_DIR'])
    for _ in range(3000):
        os.mkdir('d')
        os.chdir('d')
    os.kill(os.getpid(), 9)  # which looks as if it came from outside, so that all is run again
job.predictions(np.zeros(40))
"""
CONSTANT = "job.predictions(np.zeros(40))"


def test_folders_nested_too_deep_for_python_are_removed_before_the_next_attempt(project, bench):  # 10
    job = bench.job()
    assert project.run(main(NEST), job).lost
    outcome = project.run(main(CONSTANT), job)
    assert (outcome.status, outcome.value) == ("ok", 0.5), outcome.message
