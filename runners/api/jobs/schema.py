"""The OpenAPI descriptions of jobs."""

from __future__ import annotations

from runners.api.jobs.serializers import ExperimentJobsQuery, JobLogQuery, JobsAnswer, JobsQuery
from runners.api.openapi.describe import EXPID_IN_PATH, LOG_ERRORS, log, reading

NOW = (
    "The job list of the experiment as it is now, read from Autosubmit's own files on the machine, at most once per "
    "freshness window in each process; Autosubmit is not started. For the next page send the same query with `cursor` "
    "set to the `next_cursor` of this page."
)
CODES = ("invalid_request", "jobs_not_found", "jobs_unreadable", *LOG_ERRORS)

get_run_jobs = reading(
    "get_run_jobs",
    "The jobs of the experiment of a run",
    f"{NOW} After a later run of the experiment, the jobs are as that run left them.",
    answer=JobsAnswer,
    codes=("run_not_found", *CODES),
    query=JobsQuery,
)

get_experiment_jobs = reading(
    "get_experiment_jobs",
    "The jobs of an experiment",
    f"{NOW} The experiment need not have been run by this service. The profile must not leave a required parameter "
    "open, and its rules say who may use it. Needs a token with the scope `run`, as a command does.",
    answer=JobsAnswer,
    codes=("permission_denied", "profile_not_found", "profile_forbidden", "invalid_profile", *CODES),
    query=ExperimentJobsQuery,
    headers=[EXPID_IN_PATH],
)

get_job_log = log(
    "get_job_log",
    "A log of a job",
    ("run_not_found", "jobs_not_found", "jobs_unreadable"),
    "runs",
    query=JobLogQuery,
    text="The output of one attempt of a job: a file in the experiment's folder of logs. While a job runs on a remote "
    "platform, its log is there until Autosubmit fetches it.",
)
