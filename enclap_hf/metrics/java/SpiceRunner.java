package edu.anu.spice;

import java.io.OutputStreamWriter;
import java.io.Writer;
import java.nio.charset.StandardCharsets;
import java.nio.file.Files;
import java.nio.file.Paths;

/**
 * Runs SPICE's own scorer and writes its scores as plain JSON.
 *
 * SPICE's option -out formats its JSON with the JavaScript engine that Java lost in version 15, so on newer versions it
 * ends with a NullPointerException after all parsing is done. Here the statistics are written as they are.
 * The process also ends when its standard input closes, so it does not outlive the program that started it.
 *
 * Arguments: input.json output.json number-of-threads cache-folder
 */
public class SpiceRunner {

    public static void main(String[] arguments) {
        Thread watcher = new Thread(SpiceRunner::endWithParent);
        watcher.setDaemon(true);
        watcher.start();
        try {
            SpiceArguments options = new SpiceArguments();
            options.inputPath = arguments[0];
            options.numThreads = Integer.parseInt(arguments[2]);
            options.cache = arguments[3];
            options.silent = true;
            SpiceScorer scorer = new SpiceScorer();
            scorer.scoreBatch(options);
            try (Writer writer =
                    new OutputStreamWriter(Files.newOutputStream(Paths.get(arguments[1])), StandardCharsets.UTF_8)) {
                writer.write(scorer.stats.toJSONString());
            }
        } catch (Throwable problem) {
            problem.printStackTrace();
            Runtime.getRuntime().halt(1);
        }
        Runtime.getRuntime().halt(0);
    }

    private static void endWithParent() {
        try {
            while (System.in.read() >= 0) {
                continue;
            }
        } catch (java.io.IOException closed) {
            // The same as the end of the input.
        }
        Runtime.getRuntime().halt(3);
    }
}
