import com.fasterxml.jackson.databind.DeserializationFeature;
import java.util.List;
import org.autosubmit.runners.client.ApiClient;
import org.autosubmit.runners.client.ApiException;
import org.autosubmit.runners.client.api.CommandsApi;
import org.autosubmit.runners.client.api.ConfigurationApi;
import org.autosubmit.runners.client.api.RunsApi;
import org.autosubmit.runners.client.model.CreateExperimentParams;
import org.autosubmit.runners.client.model.CreateExperimentRequest;
import org.autosubmit.runners.client.model.Problem;
import org.autosubmit.runners.client.model.RunStatusAnswer;
import org.autosubmit.runners.client.model.RunExperimentRequest;
import org.autosubmit.runners.client.model.RunStartedAnswer;
import org.autosubmit.runners.client.model.RunStatus;
import org.autosubmit.runners.client.model.RunStatusRequest;

/** The main job over the generated Java client: java Driver URL TOKEN PROFILE. It prints some of driver.py's lines. */
public class Driver {
  static final long PATIENCE = 60_000; // milliseconds

  public static void main(String[] args) throws Exception {
    String profile = args[2];
    ApiClient client = new ApiClient();
    client.updateBaseUri(args[0]);
    // A command answers one of two schemas: its own or a plan. If unknown members are ignored, both fit each answer.
    client.setObjectMapper(client.getObjectMapper().configure(DeserializationFeature.FAIL_ON_UNKNOWN_PROPERTIES, true));
    client.setRequestInterceptor(request -> request.header("Authorization", "Bearer " + args[1]));
    CommandsApi commands = new CommandsApi(client);
    RunsApi runs = new RunsApi(client);
    say("profile", new ConfigurationApi(client).listProfiles().get(profile).getRUNNERTYPE());

    CreateExperimentParams params = new CreateExperimentParams().description("completes").dummy(true).hpc("local");
    CreateExperimentRequest create = new CreateExperimentRequest().profileName(profile).commandParams(params);
    String expid = commands.createExperiment(create, null, null).getExperimentCreatedAnswer().getExpid();

    RunExperimentRequest request = new RunExperimentRequest().profileName(profile).expid(expid).dryRun(true);
    List<String> argv = commands.runExperiment(request, null).getPlanAnswer().getArgv();
    say("plan", String.join(" ", argv));
    RunStartedAnswer started = commands.runExperiment(request.dryRun(false), null).getRunStartedAnswer();
    say("started", started.getMessage());

    RunStatusRequest ask = new RunStatusRequest().expid(expid);
    long deadline = System.currentTimeMillis() + PATIENCE;
    RunStatusAnswer run = runs.getRunnerRunStatus(ask);
    while (run.getStatus() == RunStatus.ACTIVE && System.currentTimeMillis() < deadline) {
      Thread.sleep(200);
      run = runs.getRunnerRunStatus(ask);
    }
    boolean same = run.getRunnerId().equals(started.getRunnerId());
    say("ended", run.getStatus() + " " + run.getExitCode() + " '" + run.getReason() + "' " + (same ? "True" : "False"));
    try {
      runs.getRunnerRunStatus(new RunStatusRequest().expid("zzzz"));
    } catch (ApiException error) {
      say("unknown", client.getObjectMapper().readValue(error.getResponseBody(), Problem.class).getCode());
    }
  }

  static void say(String name, Object value) {
    System.out.println(name + ": " + value);
  }
}
